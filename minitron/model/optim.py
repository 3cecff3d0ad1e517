"""AdamW on one flat vector, its learning rate over time, and clipping."""
import math

import numpy as np


def adamw(p, g, m, v, decay, step, lr, beta1, beta2, eps=1e-8):
    """One step of AdamW, in place.      p, g, m, v, decay: flat vectors of one size; step from 1

        m = beta1 * m + (1 - beta1) * g             the running mean of g
        v = beta2 * v + (1 - beta2) * g^2           and of g^2
        p = p - lr * (m_hat / (sqrt(v_hat) + eps) + decay * p)

    m and v start at 0.  m_hat and v_hat are m and v, each divided by the value that it would have
    if every g had been 1.  decay, the weight decay of each entry, does not pass through m and v
    ("decoupled").
    Kingma & Ba 2014, arXiv:1412.6980; Loshchilov & Hutter 2017, arXiv:1711.05101
    """
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    p -= lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * p)


def learning_rate(step, steps, peak, warmup, floor=0.1):
    """The rate of step 1..steps: a line up to peak, then half a cosine down to floor * peak"""
    if step <= warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def clip(g, limit):
    """The length of the gradient g before it is scaled, in place, to at most `limit`"""
    norm = math.sqrt(np.dot(g, g))
    if limit < norm < math.inf:
        g *= limit / norm
    return norm
