"""AdamW on one flat vector, its learning rate over time, and clipping."""
import math

import numpy as np


def adamw(p, g, m, v, decay, step, lr, beta1, beta2, eps=1e-8):
    """One step of AdamW, in place.      p, g, m, v, decay: flat vectors of one size; step counts from 1

        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        p -= lr * (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + decay * p)

    m and v are running means of g and g^2, divided by what they would be had every g been 1, since they start at 0.
    decay is the weight decay of each entry; it does not pass through m and v ("decoupled").

    Kingma & Ba 2014, arXiv:1412.6980; Loshchilov & Hutter 2017, arXiv:1711.05101

    Written out with one buffer, and with the two divisors multiplied into lr and eps.
    """
    scale1, scale2 = 1 / (1 - beta1**step), math.sqrt(1 - beta2**step)
    t = g - m
    t *= 1 - beta1
    m += t
    np.multiply(g, g, out=t)
    t -= v
    t *= 1 - beta2
    v += t
    np.sqrt(v, out=t)
    t += eps * scale2
    np.divide(m, t, out=t)
    t *= scale1 * scale2 * lr
    shrink = decay * p
    shrink *= lr
    p -= t
    p -= shrink


def learning_rate(step, steps, peak, warmup, floor=0.1):
    """The rate of step 1..steps: a straight line up to peak over `warmup` steps, then half a cosine down to floor * peak."""
    if step <= warmup:
        return peak * step / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def clip(g, limit):
    """Scale the gradient g, in place, so that its length is at most `limit`; return the length it had."""
    norm = math.sqrt(np.dot(g, g))
    if limit < norm < math.inf:
        g *= limit / norm
    return norm
