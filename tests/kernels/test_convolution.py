import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import fast_jit
from spectral_dd.kernels import blocks
from spectral_dd.kernels.convolution import CONVOLUTIONS, convolve
from spectral_dd.kernels.winograd import tiny


def taps_and_windows(x, kernel, stride):
    """Each tap (row, column) and the slice of the padded image that it is multiplied with."""
    for r, c in np.ndindex(kernel.shape[:2]):
        yield (r, c), np.s_[:, r : r + x.shape[1] : stride, c : c + x.shape[2] : stride]


def expected_value_and_gradients(x, kernel, stride, dy):
    """y, dx and dkernel by the definition, one tap after another, in NumPy."""
    half = [(n // 2, n // 2) for n in kernel.shape[:2]]
    padded = np.pad(x, [(0, 0), *half, (0, 0)])
    y, dpadded, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for tap, window in taps_and_windows(x, kernel, stride):
        y += np.einsum("chwn,cf->fhwn", padded[window], kernel[tap])
        dpadded[window] += np.einsum("fhwn,cf->chwn", dy, kernel[tap])
        dkernel[tap] = np.einsum("chwn,fhwn->cf", padded[window], dy)
    (top, _), (left, _) = half
    return y, dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel


def value_and_gradients(convolution, x, kernel, stride, dy):
    y, pullback = jax.vjp(lambda x, kernel: convolution(x, kernel, stride), x, kernel)
    return y, *pullback(dy)


def random_problem(images, kernel, stride=1):
    """x, kernel, dy of these shapes."""
    rng = np.random.default_rng(0)
    output = (kernel[3], -(-images[1] // stride), -(-images[2] // stride), images[3])
    return tuple(rng.standard_normal(shape) for shape in (images, kernel, output))


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (1, 1, 4, 2), (5, 3, 4, 1)])
def test_convolutions_and_their_gradients_are_those_of_the_definition(shape, stride, monkeypatch, x64):
    x, kernel, dy = random_problem((shape[2], 13, 9, 2), shape, stride)
    monkeypatch.setattr(blocks, "BLOCK_KERNELS", 0)

    @fast_jit
    def of_all(x, kernel, dy):
        found = {name: value_and_gradients(CONVOLUTIONS[name], x, kernel, stride, dy) for name in ("im2col", "lax")}
        # Winograd's leaves the others to blocks; see the test of that.
        in_blocks = ("blocks", "winograd") if (shape[:2], stride) == ((3, 3), 1) else ("blocks",)
        for block_bytes in (0, 4000, 21_000, 10**6):  # blocks of a pixel, of a few, of rows, of all
            monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
            for name in in_blocks:
                found[f"{name} {block_bytes}"] = value_and_gradients(CONVOLUTIONS[name], x, kernel, stride, dy)
        return found

    expected = expected_value_and_gradients(x, kernel, stride, dy)
    for found in of_all(x, kernel, dy).values():
        assert_close(found, expected)


def test_convolutions_are_the_same_whatever_the_height(x64):
    problems = {height: random_problem((3, height, 5, 2), (3, 3, 3, 2)) for height in (1, 2, 3, 4, 5)}

    @fast_jit
    def of_all(problems):
        return {
            height: [
                value_and_gradients(f, x, kernel, 1, dy)
                for name, f in CONVOLUTIONS.items()
                if name == "winograd" or height < 3  # the others treat heights of the kernel and more alike
            ]
            for height, (x, kernel, dy) in problems.items()
        }

    for height, of_height in of_all(problems).items():
        x, kernel, dy = problems[height]
        for found in of_height:
            assert_close(found, expected_value_and_gradients(x, kernel, 1, dy))


def test_convolutions_of_large_batches_to_many_features_are_the_same(x64):
    x, kernel, dy = random_problem((3, 8, 4, 128), (3, 3, 3, 16))

    @fast_jit
    def in_blocks(x, kernel, dy):
        return [value_and_gradients(CONVOLUTIONS[name], x, kernel, 1, dy) for name in ("blocks", "winograd")]

    for found in in_blocks(x, kernel, dy):
        assert_close(found, expected_value_and_gradients(x, kernel, 1, dy))


def test_convolutions_of_several_networks_at_once(x64):
    problems = [random_problem((2, 8, 4, 5), (3, 3, 2, 4)) for _ in range(3)]
    problems = [tuple((i + 1) * a for a in problem) for i, problem in enumerate(problems)]
    stacked = [np.stack(arrays) for arrays in zip(*problems, strict=True)]

    @fast_jit
    @jax.vmap
    def of_both(x, kernel, dy):
        return [value_and_gradients(CONVOLUTIONS[name], x, kernel, 1, dy) for name in ("blocks", "winograd")]

    for found in of_both(*stacked):
        for member, (x, kernel, dy) in enumerate(problems):
            assert_close([a[member] for a in found], expected_value_and_gradients(x, kernel, 1, dy))


def relative_error(found, expected):
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


def test_winograd_keeps_the_precision_of_float32():
    x, kernel, dy = random_problem((64, 8, 8, 16), (3, 3, 64, 8))
    exact = expected_value_and_gradients(x, kernel, 1, dy)

    @jax.jit
    def of_both(x, kernel, dy):
        return [value_and_gradients(CONVOLUTIONS[name], x, kernel, 1, dy) for name in ("winograd", "im2col")]

    def errors(found):
        assert all(a.dtype == jnp.float32 for a in found)
        return np.array([relative_error(a, b) for a, b in zip(found, exact, strict=True)])

    winograd, im2col = map(errors, of_both(*(a.astype(np.float32) for a in (x, kernel, dy))))
    # A sum of products is off by some units in the last place, 6e-8.
    assert np.all(winograd < 1e-6)
    assert np.all(winograd < 5 * im2col)


def test_winograd_leaves_half_precision_and_other_kernels_to_blocks():
    def uses_winograd(dtype, size, stride):
        x, kernel = jnp.zeros((2, 8, 8, 4), dtype), jnp.zeros((size, size, 2, 2), dtype)
        traced = [
            str(jax.make_jaxpr(lambda x, k, name=name: CONVOLUTIONS[name](x, k, stride))(x, kernel))
            for name in ("winograd", "blocks")
        ]
        return traced[0] != traced[1]

    assert uses_winograd(jnp.float32, 3, 1)
    for other in ((jnp.bfloat16, 3, 1), (jnp.float32, 3, 2), (jnp.float32, 1, 1), (jnp.float32, 5, 1)):
        assert not uses_winograd(*other)


def test_a_convolution_of_a_tiny_image_is_the_same(x64):
    problems = {str(size): random_problem((4, *size, 3), (3, 3, 4, 5)) for size in ((1, 1), (1, 2), (2, 1), (2, 2))}

    @fast_jit
    def of_all(problems):
        return {
            size: value_and_gradients(lambda x, kernel, _: tiny(x, kernel), x, kernel, 1, dy)
            for size, (x, kernel, dy) in problems.items()
        }

    for size, found in of_all(problems).items():
        x, kernel, dy = problems[size]
        assert_close(found, expected_value_and_gradients(x, kernel, 1, dy))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dtype", "is_tiny"),
    [
        (2, 3, 1, jnp.float32, True),
        (1, 3, 1, jnp.float32, True),
        (3, 3, 1, jnp.float32, False),
        (2, 1, 1, jnp.float32, False),
        (2, 3, 2, jnp.float32, False),
        (2, 3, 1, jnp.bfloat16, False),
    ],
)
def test_which_images_are_tiny(size, kernel, stride, dtype, is_tiny):
    x, kernel = jnp.zeros((3, size, size, 2), dtype), jnp.zeros((kernel, kernel, 3, 2), dtype)
    traced = str(jax.make_jaxpr(lambda x, kernel: convolve(x, kernel, stride, "lax"))(x, kernel))
    assert ("conv_general_dilated" not in traced) == is_tiny
