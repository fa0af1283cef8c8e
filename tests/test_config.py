import json

import pytest

from spectral_dd.config import FIELDS, Config
from spectral_dd.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "--width=0: must be a whole number of at least 1"),
        ({"width": "2.5"}, "--width=2.5: must be a whole number of at least 1"),
        ({"width": "many"}, "--width=many: must be a whole number of at least 1"),
        ({"width": True}, "--width=True: must be a whole number of at least 1"),
        ({"label_noise": 1.01}, "--label_noise=1.01: must be a number from 0 to 1"),
        ({"label_noise": float("nan")}, "--label_noise=nan: must be a number from 0 to 1"),
        ({"learning_rate": "inf"}, "--learning_rate=inf: must be a number of at least 0"),
        ({"spectrum_half_width": 0}, "--spectrum_half_width=0: must be a number from 1e-06 to 1000000.0"),
        ({"spectrum_points": 31}, "--spectrum_points=31: must be even"),
        ({"optimizer": "adm"}, "--optimizer=adm: must be one of adam, adamw, sgd. Did you mean 'adam'?"),
        ({"flip": "perhaps"}, "--flip=perhaps: must be true or false"),
        ({"train_size": 50, "batch_size": 64}, "--batch_size=64: larger than the training set (--train_size=50)"),
        ({"spectrum_point": 8}, "'spectrum_point': is no field of a member. Did you mean 'spectrum_points'?"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_what_is_allowed(values, message):
    with pytest.raises(InputError) as error:
        Config.of(**values)
    assert str(error.value) == message


def test_text_is_parsed_into_the_type_of_the_field():
    config = Config.of(width="16", learning_rate="1e-4", flip="True", label_noise="0", spectrum_points="8")
    assert (config.width, config.learning_rate, config.flip, config.label_noise) == (16, 1e-4, True, 0.0)
    assert isinstance(config.label_noise, float) and config.spectrum.points == 8


def test_values_are_by_flag_name_and_come_back_through_json():
    config = Config.of(width=3, learning_rate=1 / 3, flip=True, spectrum_window="sine")
    assert list(config.values()) == list(FIELDS)
    assert Config.of(**json.loads(json.dumps(config.values()))) == config


def test_what_shapes_the_program_is_static():
    same = Config.of(width=3, seed=1, learning_rate=0.1, label_noise=0.5, train_size=500)
    assert Config().static() == same.static()
    for name, value in {"epochs": 3, "optimizer": "sgd", "spectrum_points": 8, "shift": 1}.items():
        assert Config.of(**{name: value}).static() != same.static()
