"""All tensors of a model in one flat buffer, with a named view onto each.

Weights, their gradients and both AdamW moments are four Params of the same shapes: the optimizer
sees four vectors, the model sees names, and the model file holds the weights' vector as it is.
"""
import math

import numpy as np

from ..base.rng import INIT, Random

ALIGN = 16      # floats; every tensor starts on a 64-byte line, in memory and in model.bin


def shapes(config):
    """Tensor name -> shape, in the file's order.  A matrix is (out, in): y = x @ w.T."""
    c = config
    q_width, kv_width = c.heads * c.head_dim, c.kv_heads * c.head_dim
    tensors = {
        "embed": (c.vocab, c.dim),
        "norm1": (c.layers, c.dim),
        "wqkv": (c.layers, q_width + 2 * kv_width, c.dim),
        "wo": (c.layers, c.dim, q_width),
    }
    if c.qk_norm:
        tensors |= {"norm_q": (c.layers, c.head_dim), "norm_k": (c.layers, c.head_dim)}
    if c.ffn_dim:
        tensors |= {
            "norm2": (c.layers, c.dim),
            "w13": (c.layers, 2 * c.ffn_dim, c.dim),
            "w2": (c.layers, c.dim, c.ffn_dim),
        }
    tensors["norm_f"] = (c.dim,)
    if not c.tied:
        tensors["head"] = (c.vocab, c.dim)
    return tensors


def aligned(size):
    return -(-size // ALIGN) * ALIGN


def flat_size(shapes):
    """Entries of the flat vector that holds tensors of these shapes."""
    return sum(aligned(math.prod(shape)) for shape in shapes.values())


class Params:
    """One flat vector and its views: p.wo[l] is layer l's output matrix.

    Write through a view (p.wo[l] = w); assigning the attribute itself (p.wo = w) would cut it loose
    from the vector.  The gaps that ALIGN leaves between tensors hold zeros and stay zero.
    """

    def __init__(self, config, dtype=np.float32):
        self.shapes = shapes(config)
        self.flat = np.zeros(flat_size(self.shapes), dtype)
        start = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            setattr(self, name, self.flat[start:start + size].reshape(shape))
            start += aligned(size)

    def tensors(self):
        """Name -> view, in file order."""
        return {name: getattr(self, name) for name in self.shapes}

    def count(self):
        """The number of parameters, gaps not counted."""
        return sum(tensor.size for tensor in self.tensors().values())

    def first_nonfinite(self):
        """The name of the first tensor (and layer) that holds an infinity or a NaN, or None."""
        for name, tensor in self.tensors().items():
            if not np.isfinite(tensor).all():
                if name.startswith(("norm_f", "embed", "head")):
                    return name
                layer = next(l for l, part in enumerate(tensor) if not np.isfinite(part).all())
                return f"{name}[{layer}]"
        return None


def init(config, dtype=np.float32):
    """Weights before training: norms 1, matrices uniform with standard deviation fan_in^-0.5.

    wo and w2 write into the residual stream, 2L times in all; (2L)^-0.5 keeps its sum from growing
    with depth (Radford et al. 2019).  Uniform, not normal, since that needs no logarithm: the bits
    are the same on every machine.
    """
    p = Params(config, dtype)
    rng = Random(config.seed, INIT)
    for name, tensor in p.tensors().items():
        if name.startswith("norm"):
            tensor[...] = 1
        else:
            variance = 1 / tensor.shape[-1] / (2 * config.layers if name in ("wo", "w2") else 1)
            width = math.sqrt(3 * variance)         # a uniform in -width..width has width^2 / 3
            tensor[...] = (2 * rng.uniform(tensor.shape) - 1) * width
    return p


def decay_mask(config, dtype=np.float32):
    """1 for the matrices, which weight decay shrinks, 0 for the norms, as one flat vector."""
    mask = Params(config, dtype)
    for name, tensor in mask.tensors().items():
        tensor[...] = 0 if name.startswith("norm") else 1
    return mask.flat
