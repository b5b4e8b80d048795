"""Record files, archives, pickles and run.json with damage in any place: a
seeded loop over each, in all some thousand cases; more with the marker `long`.

Each gives a UserError that names the file, or does no harm.
"""

import dataclasses
import glob
import hashlib
import io
import json
import pickle
import pathlib
import random
import re
import shutil
import time

import numpy as np
import pytest

from cifar10 import train
from cifar10.data import archives as archives_lib
from cifar10.data import datasets
from cifar10.data import pickles
from cifar10.runs import description
from cifar10.util.errors import UserError
from tests.data.test_datasets import BINARY
from tests.data.test_datasets import make_archive
from tests.data.test_datasets import PICKLED
from tests.data.test_datasets import pickled
from tests.data.test_datasets import write_files
from tests.runs.test_description import make_run

SIZES = pytest.mark.parametrize('cases', [
    300, pytest.param(20000, marks=pytest.mark.long)])


def damages(content, cases):
  """Yields `cases` times the content, damaged in a random place: a bit flipped,
  a byte replaced, the end or a piece cut off, a piece doubled."""
  rng = random.Random(cases)
  for _ in range(cases):
    i, n = rng.randrange(len(content)), rng.randrange(1, 9)
    yield rng.choice([
        lambda: content[:i] + bytes([content[i] ^ 1 << n % 8])
        + content[i + 1:],
        lambda: content[:i] + rng.randbytes(1) + content[i + 1:],
        lambda: content[:i],
        lambda: content[:i] + content[i + n:],
        lambda: content[:i + n] + content[i:]])()


def peak_memory(reset=False):
  """Returns the most memory that this process took since the last reset, in
  bytes."""
  if reset:
    pathlib.Path('/proc/self/clear_refs').write_text('5')
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status).group(1))


@pytest.fixture
def bounded():
  """Fails the test if it takes more than 1 GB more memory than was taken."""
  before = peak_memory(reset=True)
  yield
  assert peak_memory() - before < 1e9


@SIZES
def test_record_files(tmp_path, bounded, cases):
  write_files(tmp_path, PICKLED)
  datasets.ensure('cifar10', tmp_path, archives=())
  directory = tmp_path / 'cifar-10-batches-bin'
  names = sorted(glob.glob('*', root_dir=directory))
  assert len(names) == 8
  for name in names:
    path = directory / name
    content = path.read_bytes()
    for damaged in damages(content, cases // 10):
      if damaged == content:
        continue
      path.write_bytes(damaged)
      # A checksum that is another one accuses its file.
      with pytest.raises(UserError, match=f'^{path}: ' if (
          name != 'checksums.txt') else f'^{directory}/'):
        datasets.ensure('cifar10', tmp_path)
    path.unlink()
    if name != 'checksums.txt':
      with pytest.raises(UserError, match=f'^{path}: '):
        datasets.ensure('cifar10', tmp_path)
    path.write_bytes(content)
  datasets.ensure('cifar10', tmp_path)


def as_published(path):
  """Returns a file as if it were what was published."""
  content = path.read_bytes()
  return archives_lib.Archive(
      path.name, len(content), hashlib.md5(content).hexdigest(), ())


@SIZES
def test_archives_of_another_checksum_are_not_even_opened(
    tmp_path, cases, monkeypatch):
  path = tmp_path / 'cifar-10-binary.tar.gz'
  archive = make_archive(path, BINARY)
  archive = archives_lib.Archive(archive.name, archive.size, archive.md5, ())
  content = path.read_bytes()
  monkeypatch.setattr(archives_lib, 'extract', lambda *_: pytest.fail('opened'))
  for damaged in damages(content, cases // 3):
    if damaged != content:
      path.write_bytes(damaged)
      with pytest.raises(UserError, match=f'{path}: has '):
        datasets.ensure('cifar10', tmp_path, archives=[archive])


@SIZES
def test_pickles(bounded, cases):
  batch = PICKLED['cifar-10-batches-py/data_batch_2']
  # Some damage to what is not pixels, too.
  small = pickled({b'labels': [1], b'data': np.zeros([1, 3072], np.uint8),
                   b'filenames': [b'a.png']})
  for content in batch, small:
    for damaged in damages(content, 3 * cases):
      try:
        images, labels = pickles.read_batch('batch', io.BytesIO(damaged))
        assert images.shape == (len(labels), 32, 32, 3)
      except UserError as e:
        assert str(e).startswith('batch: ')


@pytest.mark.parametrize('content', [
    b'\x80\x02}r\xff\xff\xff\x7f.',  # Memo entry 2**31 - 1.
    b'\x80\x02}r\xff\xff\xff\x0f.', b'}p2000000000\n.',
    b'\x80\x02T\xff\xff\xff\x7f.',  # A string of 2 GB to come.
    b'\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.',
    b'\x80\x02\x8b\xff\xff\xff\x7f.',
    b'\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00.',
    b'(' * 1000000 + b'.', b'cos\nsystem\n(S"true"\ntR.',
    b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.',
    b'\x80\x02cnumpy\nndarray\n)\x81}(U\x01au\x62.',
    b'\x80\x02})' + b'2\x86' * 100 + b'K\x01s.'])  # A key of 2**100 tuples.
def test_evil_pickles(bounded, content):
  started = time.monotonic()
  with pytest.raises(UserError, match='^batch: '):
    pickles.read_batch('batch', io.BytesIO(content))
  assert time.monotonic() - started < 10


@pytest.mark.parametrize('label', [-1, 256, 1.5, 'x', None, b'1', [1]])
def test_labels_that_are_none(tmp_path, label):
  write_files(tmp_path, PICKLED)
  content = pickle.loads(pickle.dumps({
      b'labels': [label], b'data': np.zeros([1, 3072], np.uint8)}))
  write_files(tmp_path, {'cifar-10-batches-py/data_batch_2': pickled(content)})
  with pytest.raises(UserError, match='data_batch_2: '):
    datasets.ensure('cifar10', tmp_path, archives=())


@SIZES
def test_run_json(tmp_path, cases):
  description.save(make_run(tmp_path))
  path = tmp_path / 'run.json'
  content = path.read_bytes()
  for damaged in damages(content, 3 * cases):
    path.write_bytes(damaged)
    try:
      assert isinstance(description.load(tmp_path), description.Run)
    except UserError as e:
      assert str(e).startswith(f'{path}: ')


VALUES = [None, True, -1, 0, 10**400, 1e300, 1.5, '', 'x', [], [1], {},
          {'x': 1}, [[]], [[1, 2, 3]], [['a', 'b']], [[1e400, 1]]]


def test_run_json_with_values_of_any_type(tmp_path):
  description.save(make_run(tmp_path))
  path = tmp_path / 'run.json'
  content = json.loads(path.read_text())
  refused = 0
  for where in ['run'], ['run', 'recipe']:
    fields = content
    for name in where:
      fields = fields[name]
    for name, right in list(fields.items()):
      for value in VALUES:
        fields[name] = value
        path.write_text(json.dumps(content))
        try:
          run = dataclasses.replace(description.load(tmp_path),
                                    train_dir=str(tmp_path))
          description.save(run)
          assert description.load(tmp_path) == run
        except UserError as e:
          assert str(e).startswith(f'{path}: ')
          refused += 1
      fields[name] = right
  assert refused > 400


@pytest.mark.parametrize('text, message', [
    ('{"version": 2, "run": {}}', 'it is of version 2, this program of vers'),
    ('[' * 100000, 'is not a description'),
    (' ' * 20000000, 'has more than 16,777,216 bytes'),
    ('{"version": 1, "run": {"from_the_future": 1}}', 'is not a description')])
def test_run_json_of_something_else(tmp_path, text, message):
  (tmp_path / 'run.json').write_text(text)
  with pytest.raises(UserError, match=f'run.json: .*{message}'):
    description.load(tmp_path)


def test_other_records_than_a_run_was_trained_on(make_run, data_dir, tmp_path):
  """Noticed even where nobody noted checksums when the data was made."""
  shutil.copytree(data_dir, tmp_path / 'data')
  run = make_run(network='softmax', data_dir=str(tmp_path / 'data'),
                 max_steps=1)
  train.train(run)
  path = tmp_path / 'data' / 'cifar-10-batches-bin' / 'data_batch_2.bin'
  content = bytearray(path.read_bytes())
  content[12345] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match='holds a run with checksum of the train'):
    train.train(run)
