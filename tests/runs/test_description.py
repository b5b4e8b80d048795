import dataclasses
import json
import pathlib

import pytest

from cifar10 import model
from cifar10.runs import description
from cifar10.util.errors import UserError


def make_run(train_dir, batch_size=8, **arguments):
  recipe = dataclasses.replace(model.RECIPE, batch_size=batch_size)
  return description.Run(**{
      'train_dir': str(train_dir), 'recipe': recipe, 'num_examples': 100,
      'max_steps': 7, **arguments})


def test_load_gives_what_save_was_given(tmp_path):
  run = make_run(tmp_path, num_towers=3, seed=5)
  description.save(run)
  loaded = description.load(tmp_path)
  assert dataclasses.replace(loaded, data_url=()) == run
  assert run.global_batch == 24
  written = json.loads((tmp_path / 'run.json').read_text())
  assert set(written['versions']) == {
      'cifar10', 'python', 'tensorflow', 'numpy'}


def test_from_python(tmp_path):
  run = make_run(tmp_path, data_url='https://x/y', init_from=tmp_path / 'a')
  assert run.data_url == ('https://x/y',)
  by_path = description.Run(train_dir=tmp_path, data_dir=tmp_path)
  assert by_path == description.Run(train_dir=str(tmp_path),
                                    data_dir=str(tmp_path))
  assert run.init_from == f'{tmp_path}/a'
  with pytest.raises(UserError, match='train_dir=3: expected text'):
    description.Run(train_dir=3)
  with pytest.raises(UserError, match='data_dir=.*: expected text in UTF-8'):
    description.Run(data_dir=pathlib.Path('\udcff'))


def test_no_run(tmp_path):
  assert description.load(tmp_path) is None
  assert description.load(tmp_path / 'nowhere') is None


def test_a_description_without_newer_fields(tmp_path):
  description.save(make_run(tmp_path, checksum='01234567'))
  path = tmp_path / 'run.json'
  content = json.loads(path.read_text())
  del content['run']['checksum']
  path.write_text(json.dumps(content))
  assert description.load(tmp_path) == make_run(tmp_path)


@pytest.mark.parametrize('content', [
    '', '{', '[]', '{}', 'null', '{"version": 2}', '{"version": 1}',
    '{"version": 1, "run": {}}', '{"version": 1, "run": {"recipe": {}}}',
    '\udcff'])
def test_a_damaged_description_is_named(tmp_path, content):
  (tmp_path / 'run.json').write_bytes(content.encode(errors='surrogateescape'))
  with pytest.raises(UserError, match='run.json: is (not a desc|no text)'):
    description.load(tmp_path)


def test_towers_and_length_do_not_make_another_run(tmp_path):
  run = make_run(tmp_path)
  same = dataclasses.replace(
      run, num_towers=2, max_steps=9, summary_steps=3,
      recipe=dataclasses.replace(run.recipe, batch_size=4, epochs=1))
  assert run.identity() == same.identity()
  assert run.digest() == same.digest()
  for change in ({'seed': 2}, {'dataset': 'synthetic'}, {'batch_size': 4},
                 {'num_examples': 99}, {'network': 'softmax'},
                 {'reduce_dtype': 'bfloat16'}):
    assert run.identity() != make_run(tmp_path, **change).identity()
    assert run.digest() != make_run(tmp_path, **change).digest()
  recipe = dataclasses.replace(run.recipe, learning_rate=0.2)
  assert run.identity() != dataclasses.replace(run, recipe=recipe).identity()
  # The steps of a cosine, and of lookahead, depend on how many there are.
  for change in {'schedule': 'cosine'}, {'lookahead_steps': 5}:
    recipe = dataclasses.replace(run.recipe, **change)
    long = dataclasses.replace(recipe, epochs=99)
    assert dataclasses.replace(run, recipe=recipe).identity() != (
        dataclasses.replace(run, recipe=long).identity())
