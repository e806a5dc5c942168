"""Spectral norms of the weights of a network's layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prs_lightning.errors import ConfigError
from prs_lightning.seeding import keyed_generator

LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
WITHOUT = "leave the norms out, callbacks.weight_norms=null"
DIRECT = 64
"""Up to this many rows or columns all eigenvalues are computed; beyond, the largest alone by iteration."""


def weight_matrix(layer: nn.Module) -> Tensor:
    """The weight of a fully connected or convolutional layer as a matrix (outputs, inputs).

    That of a convolution is (out, in * kh * kw), one row per filter (Miyato et al. 2018, "Spectral normalization for
    generative adversarial networks", section 2.1; torch's ``spectral_norm`` takes it so as well). Its norm is that of
    the map from one patch to one pixel, not of the convolution of a whole image, which can be up to sqrt(kh * kw)
    times as large.

    Raises:
        ConfigError: a layer without a weight, or a lazy one that has none yet.
    """
    weight: Any = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or is_lazy(weight) or weight.ndim < 2:
        shape = "no weight yet, it is lazy and has not run" if is_lazy(weight) else "no weight matrix"
        raise ConfigError(f"{type(layer).__name__} has {shape}: expected a fully connected or convolutional layer")
    weight = weight.detach()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        weight = weight.transpose(0, 1)  # of (in, out / groups, kh, kw)
    return weight.flatten(1)


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value of a matrix (M, N), 0 or more; NaN if an element is not finite.

    Of a small one by all eigenvalues of W W^T in float64; of others by ARPACK's Lanczos iteration on W W^T x from a
    fixed vector, products in float32 on the matrix's device, to a relative 1e-6 or better: the norm of 4096 x 4096
    took 0.5 s on 2 cores, all its singular values 40 s. The same matrix gives the same number on every process.

    >>> spectral_norm(torch.diag(torch.tensor([3.0, -4.0])))
    4.0
    """
    matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
    scale = float(matrix.abs().max())
    if scale == 0 or not math.isfinite(scale):
        return scale * 0
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / scale  # squares of what is very large or small would leave the range
    if len(wide) <= DIRECT:
        wide = wide.cpu().double()
        return scale * math.sqrt(max(0.0, float(torch.linalg.eigvalsh(wide @ wide.T)[-1])))
    wide = wide.float().contiguous()

    def product(vector: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(vector.ravel(), dtype=np.float32)).to(wide.device)
        found: np.ndarray = (wide @ (wide.T @ x)).double().cpu().numpy()
        return found

    squared = LinearOperator((len(wide), len(wide)), matvec=product, dtype=np.float64)
    start = torch.randn(len(wide), generator=keyed_generator(0), dtype=torch.float64).numpy()
    return scale * math.sqrt(max(0.0, float(eigsh(squared, 1, v0=start, tol=1e-6, return_eigenvectors=False)[0])))


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """`weight_matrix` of each fully connected and convolutional layer by its name, in the order of registration.

    Each layer once, the final one too. Biases, normalisations and weights in other modules (attention's
    ``in_proj_weight``, embeddings) are none of these.

    Raises:
        ConfigError: no such layer, or one without a weight.
    """
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            try:
                found[name] = weight_matrix(layer)
            except ConfigError as error:
                raise ConfigError(f"layer {name!r}: {error}; {WITHOUT}") from error
    if not found:
        raise ConfigError(f"{type(model).__name__} has no fully connected or convolutional layer; {WITHOUT}")
    return found


def log_norms(model: nn.Module) -> dict[str, float]:
    """log10 of the `spectral_norm` of each of `named_weights`; -inf for one that is 0, NaN for one that is not finite.

    The sum is log10 of the product of norms, which bounds the Lipschitz constant of a network of such layers alone, up
    to the convolutions' factor (`weight_matrix`). Jiang et al. 2020, "Fantastic generalization measures and where to
    find them", take the product of their squares: twice this logarithm.
    """
    norms = {name: spectral_norm(matrix) for name, matrix in named_weights(model).items()}
    return {name: math.log10(norm) if norm != 0 else -math.inf for name, norm in norms.items()}
