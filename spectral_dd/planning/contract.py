"""Whether a network of one's own can be trained: it is traced in both modes, and nothing is computed."""

import jax
import jax.numpy as jnp

from spectral_dd import models
from spectral_dd.config import Config
from spectral_dd.errors import InputError, reason
from spectral_dd.training import without_params

EXAMPLES = 3


def check_network(name: str, width: int, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Raises `InputError` unless a network gives logits (example, class) for such images in both modes."""
    model = models.build_model(Config.of(model=name, width=width), num_classes)
    about = f"--model={name}: at width {width}"

    def both(key, images):
        variables = model.init(key, images[:1], train=False)
        evaluated = model.apply(variables, images, train=False)
        mutable = list(without_params(variables))
        trained, _ = model.apply(variables, images, train=True, rngs={"dropout": key}, mutable=mutable)
        return variables, {"evaluation": evaluated, "training": trained}

    images = jax.ShapeDtypeStruct((EXAMPLES, *image_shape), jnp.float32)
    try:
        variables, logits = jax.eval_shape(both, jax.random.key(0), images)
    except InputError:
        raise
    except Exception as error:  # whatever a network of somebody else raises
        raise InputError(f"{about}, it cannot be called with images {images.shape}: {reason(error)[:300]}") from error
    if not jax.tree.leaves(variables.get("params", {})):
        raise InputError(f"{about}, it has no parameters")
    for mode, found in logits.items():
        shape, wanted = getattr(found, "shape", type(found).__name__), (EXAMPLES, num_classes)
        if shape != wanted or not jnp.issubdtype(found.dtype, jnp.floating):
            raise InputError(
                f"{about}, it must return logits {wanted} for {EXAMPLES} images in {mode} mode; it returned {shape}"
                + (f" of {found.dtype}" if shape == wanted else "")
            )
