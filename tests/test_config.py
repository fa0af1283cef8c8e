import dataclasses
import json

import pytest

from spectral_dd.config import Config, InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "--width=0: must be a whole number of at least 1"),
        ({"width": "2.5"}, "--width=2.5: must be a whole number of at least 1"),
        ({"width": "many"}, "--width=many: must be a whole number of at least 1"),
        ({"label_noise": 1.01}, "--label_noise=1.01: must be a number from 0 to 1"),
        ({"label_noise": float("nan")}, "--label_noise=nan: must be a number from 0 to 1"),
        ({"learning_rate": "inf"}, "--learning_rate=inf: must be a number of at least 0"),
        ({"spectrum_half_width": 0}, "--spectrum_half_width=0: must be a number above 0"),
        ({"spectrum_points": 31}, "--spectrum_points=31: must be even"),
        (
            {"schedule": "cosin"},
            "--schedule=cosin: must be one of constant, inverse_sqrt, cosine. Did you mean 'cosine'?",
        ),
        ({"flip": "perhaps"}, "--flip=perhaps: must be true or false"),
        ({"train_size": 50, "batch_size": 64}, "--batch_size=64: larger than the training set (--train_size=50)"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_what_is_allowed(values, message):
    with pytest.raises(InputError) as error:
        Config(**values)
    assert str(error.value) == message


def test_text_is_parsed_into_the_type_of_the_field():
    config = Config(width="16", learning_rate="1e-4", flip="True", label_noise="0")
    assert (config.width, config.learning_rate, config.flip, config.label_noise) == (16, 1e-4, True, 0.0)
    assert isinstance(config.label_noise, float)


def test_json_round_trip():
    config = Config(width=3, learning_rate=1 / 3, flip=True)
    assert Config(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
