"""Write the fuzz targets' corpus: models of every kind that are as small as can be, and texts.

    python tests/fuzz/make_corpus.py        from the repository's root; only after a change of the
    file format
"""
import random
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))        # so that minitron is found

from minitron.engine.model_file import FLOAT32, INT8, Vocabulary, model_bytes  # noqa: E402
from minitron.model.config import ModelConfig  # noqa: E402
from minitron.model.params import Params  # noqa: E402

PIECES = [b"", b"a", b"b", b"ab", b"aba", b"\n", b"\xff",
          *(bytes([byte]) for byte in range(128, 160))]
SHAPES = [
    {"dim": 1, "layers": 1, "heads": 1, "head_dim": 2, "ffn_dim": 0, "vocab": 2},
    {"dim": 4, "layers": 2, "heads": 2, "head_dim": 2, "kv_heads": 1, "ffn_dim": 3, "vocab": 5},
    {"dim": 2, "layers": 1, "heads": 1, "head_dim": 2, "ffn_dim": 2, "vocab": 35,
     "attention": "linear", "tied": False, "rope_theta": 0},
    {"dim": 17, "layers": 1, "heads": 1, "head_dim": 2, "ffn_dim": 1, "vocab": 4, "qk_norm": False},
]
TEXTS = [b"a", b"abababc", b"a" * 300, b"abaccc ab\n", b"\xff\xfe\xc3\xa4", b"\x00ab\x80",
         b"x\xffy", b"abz", b"abcabcabca"]


def model(i, dtype):
    config = ModelConfig(**SHAPES[i]).resolve()
    p = Params(config)
    p.flat[:] = np.random.default_rng(i).standard_normal(p.flat.size)
    vocabulary = Vocabulary(PIECES[:config.vocab], 6, 0 if i % 2 else None, 1 if i > 1 else None,
                            1.0, begins_with_bos=i == 1, own_positions=i == 2, prompt_min=i,
                            prompt_max=2 * i)
    return model_bytes(config, p, vocabulary, {"task": "fuzz"}, dtype)


def main():
    scripts = random.Random(0)
    dtypes = {"float32": FLOAT32, "int8": INT8}
    models = {f"{i}-{name}": model(i, dtype) for i in range(len(SHAPES)) for name,
              dtype in dtypes.items()}
    corpus = {
        "loader": models,
        "encode": {str(i): text for i, text in enumerate(TEXTS)},
        "generate": {name: content + scripts.randbytes(120) for name, content in models.items()},
    }
    for target, files in corpus.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
