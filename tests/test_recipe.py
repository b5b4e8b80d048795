import dataclasses
import json

import pytest

from cifar10 import recipe as recipe_lib
from cifar10.networks import NETWORKS
from cifar10.recipe import Recipe
from cifar10.util.errors import UserError

RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=0.5)


def test_override():
  changed = recipe_lib.override(
      RECIPE, 'learning_rate=0.05,epochs=10,batch_size=7,schedule=linear,'
      'knots=0:0/5:1/24:0.5')
  assert changed == dataclasses.replace(
      RECIPE, learning_rate=0.05, epochs=10.0, batch_size=7, schedule='linear',
      knots=((0, 0), (5, 1), (24, 0.5)))
  assert recipe_lib.override(RECIPE, '') == RECIPE
  for text, value in ('True', True), ('false', False):
    assert recipe_lib.override(
        RECIPE, f'alternating_flip={text}').alternating_flip is value


@pytest.mark.parametrize('text, message', [
    ('learning_rat=1', "recipe field 'learning_rat'. Did you mean learning"),
    ('xyz=1', 'Did you mean epochs or batch_size or '),
    ('batch_size=1.5', "batch_size='1.5': expected an integer"),
    ('epochs=', "epochs='': expected a finite number"),
    ('epochs', "epochs='': expected a finite number"),
    ('alternating_flip=1', 'alternating_flip=1: expected true or false'),
    ('knots=5', "knots='5': expected epoch:factor"),
    ('knots=5:x', "knots='5:x': expected epoch:factor"),
    ('batch_size=0', 'batch_size=0: expected 1 or more'),
    ('batch_size=-3', 'batch_size=-3: expected 1 or more'),
    ('epochs=nan', 'epochs=nan: expected a finite number'),
    ('learning_rate=inf', 'learning_rate=inf: expected a finite'),
    ('knots=5:1/5:2', 'expected pairs of epoch and factor, the epochs r'),
    ('decayed_variables=(', r'decayed_variables=\(: ')])
def test_override_refuses(text, message):
  with pytest.raises(UserError, match=message):
    recipe_lib.override(RECIPE, text)


@pytest.mark.parametrize('recipe', [
    *(n.RECIPE for n in NETWORKS.values()),
    dataclasses.replace(RECIPE, knots=((0, 1 / 3), (1e-7, 1234567.5))),
    dataclasses.replace(RECIPE, decayed_variables='block1.0')])
def test_a_recipe_survives_text_and_json(recipe):
  start = Recipe(epochs=1, batch_size=1, learning_rate=0)
  assert recipe_lib.override(start, recipe.changed()) == recipe
  assert Recipe(**json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


@pytest.mark.parametrize('num_examples, batch, steps', [
    (50000, 128, 1172), (100, 10, 30), (3, 2, 5)])
def test_number_of_steps(num_examples, batch, steps):
  assert RECIPE.num_steps(num_examples, batch) == steps
