"""Products of matrices. Factors of half precision are multiplied as they are, and summed in float32.

A CPU's units for bfloat16 (AVX-512, AMX) sum in float32, and XLA runs them at their full rate if it is asked for that.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def sum_type(dtype) -> jnp.dtype:
    """The type of sums of numbers of this type."""
    return jnp.promote_types(dtype, jnp.float32)


def matmul(a: Float[Array, "_ _"], b: Float[Array, "_ _"], contract: tuple[int, int] = (1, 0)) -> Float[Array, "_ _"]:
    """The product of two matrices, of `sum_type`, summed over the axis of each that `contract` names.

    Derivatives are products of the same kind; in half precision there are reverse-mode ones only.
    """
    return (_of_half_precision if a.dtype.itemsize < 4 else _multiply)(a, b, contract)


def matmuls(
    a: Float[Array, "product _ _"], b: Float[Array, "product _ _"], contract: tuple[int, int]
) -> Float[Array, "product _ _"]:
    """`matmul` of each two matrices."""
    return jax.vmap(functools.partial(matmul, contract=contract))(a, b)


def _multiply(a, b, contract):
    i, j = contract
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())), preferred_element_type=sum_type(a.dtype))


# Autodiff would multiply by a derivative of the sums' type, and the units take two factors of one type.
_of_half_precision = jax.custom_vjp(_multiply, nondiff_argnums=(2,))


def _forward(a, b, contract):
    return _multiply(a, b, contract), (a, b)


def _backward(contract, factors, dy):
    (a, b), (i, j) = factors, contract
    dy = dy.astype(a.dtype)
    da = _multiply(dy, b, (1, 1 - j)) if i else _multiply(b, dy, (1 - j, 1))
    db = _multiply(dy, a, (0, 1 - i)) if j else _multiply(a, dy, (1 - i, 0))
    return da.astype(a.dtype), db.astype(b.dtype)


_of_half_precision.defvjp(_forward, _backward)
