import glob
import hashlib
import io
import os
import pickle
import re
import tarfile

import numpy as np
import pytest

from cifar10.data import archives as archives_lib
from cifar10.data import datasets
from cifar10.util.errors import UserError

BATCHES = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']


class Python2Pickler(pickle._Pickler):
  """Writes pickles as Python 2 with its NumPy did: byte strings, old names."""

  def save_bytes(self, obj):
    self.write(pickle.BINSTRING + len(obj).to_bytes(4, 'little') + obj)
    self.memoize(obj)

  def save_global(self, obj, name=None):
    module = {'_reconstruct': 'numpy.core.multiarray'}.get(
        obj.__name__, 'numpy')
    self.write(b'c' + f'{module}\n{obj.__name__}\n'.encode())

  dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes,
              type: save_global, type(pickle.dumps): save_global}


def pickled(content):
  file = io.BytesIO()
  Python2Pickler(file, protocol=2).dump(content)
  return file.getvalue()


def make_records():
  """Returns five records for each batch, as raw bytes by its name."""
  rng = np.random.default_rng(0)
  batches = {}
  for name in BATCHES:
    batches[name] = rng.integers(0, 256, (5, 3073), np.uint8)
    batches[name][:, 0] %= 10
  return batches


RECORDS = make_records()
BINARY = {f'cifar-10-batches-bin/{name}.bin': data.tobytes()
          for name, data in RECORDS.items()}
BINARY['cifar-10-batches-bin/batches.meta.txt'] = b'\n'.join(
    b'class %d' % i for i in range(10)) + b'\n\n'
PICKLED = {f'cifar-10-batches-py/{name}': pickled({
    b'batch_label': b'a batch', b'labels': [int(x) for x in data[:, 0]],
    b'data': data[:, 1:], b'filenames': [b'a.png'] * 5})
    for name, data in RECORDS.items()}
PICKLED['cifar-10-batches-py/batches.meta'] = pickled(
    {b'label_names': [b'class %d' % i for i in range(10)]})


def make_archive(path, files):
  """Writes a .tar.gz and returns the `Archive` that describes it."""
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  content = path.read_bytes()
  return archives_lib.Archive(
      path.name, len(content), hashlib.md5(content).hexdigest(),
      (path.as_uri(),))


@pytest.fixture
def archives(tmp_path):
  mirror = tmp_path / 'mirror'
  mirror.mkdir()
  return (make_archive(mirror / 'cifar-10-python.tar.gz', PICKLED),
          make_archive(mirror / 'cifar-10-binary.tar.gz', BINARY))


def write_files(data_dir, files):
  for name, content in files.items():
    path = data_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def assert_complete(data, data_dir):
  paths = data.train.paths + data.test.paths
  assert [os.path.relpath(path, data_dir) for path in paths] == [
      f'cifar-10-batches-bin/{name}.bin' for name in BATCHES]
  for path, name in zip(paths, BATCHES):
    with open(path, 'rb') as f:
      assert f.read() == RECORDS[name].tobytes()
  assert len(data.train) == 25 and len(data.test) == 5
  assert data.format.class_names == tuple(f'class {i}' for i in range(10))


@pytest.mark.parametrize('files', [BINARY, PICKLED])
def test_extracted_files_need_neither_archive_nor_network(tmp_path, files):
  write_files(tmp_path, files)
  assert_complete(datasets.ensure('cifar10', tmp_path, archives=()), tmp_path)


@pytest.mark.parametrize('i', [0, 1])
def test_an_archive_put_there_by_hand(tmp_path, archives, i):
  archive = archives[i]
  os.rename(tmp_path / 'mirror' / archive.name, tmp_path / archive.name)
  data = datasets.ensure('cifar10', tmp_path, archives=archives)
  assert_complete(data, tmp_path)
  assert (tmp_path / archive.name).exists()


@pytest.mark.parametrize('i', [0, 1])
def test_download(tmp_path, archives, i):
  data_dir = tmp_path / 'made' / 'on the way'
  data = datasets.ensure('cifar10', data_dir, archives=archives[i:])
  assert_complete(data, data_dir)
  assert sorted(os.listdir(data_dir)) == [
      '.lock', 'cifar-10-batches-bin']


def test_data_url_takes_the_place_of_the_known_ones(tmp_path, archives):
  known = tuple(
      archives_lib.Archive(a.name, a.size, a.md5, ('http://127.0.0.1:1',))
      for a in archives)
  url = archives[1].urls[0]
  data = datasets.ensure('cifar10', tmp_path / 'data', [url], known)
  assert_complete(data, tmp_path / 'data')
  with pytest.raises(UserError, match='expected a URL that ends in cifar-10-p'):
    datasets.ensure('cifar10', tmp_path / 'more', ['http://x/y.zip'], known)


def test_a_url_can_have_parameters(tmp_path, archives, serve):
  asked = []

  def respond(handler):
    asked.append(handler.path)
    content = (tmp_path / 'mirror' / archives[0].name).read_bytes()
    handler.send_response(200)
    handler.send_header('Content-Length', len(content))
    handler.end_headers()
    handler.wfile.write(content)

  url = f'/x/{archives[0].name}?signature=a%2Fb&expires=9'
  data = datasets.ensure('cifar10', tmp_path / 'data', [serve(respond) + url],
                        archives)
  assert_complete(data, tmp_path / 'data')
  assert asked == [url]
  with pytest.raises(UserError, match='expected a URL that ends in cifar-10-p'):
    datasets.ensure('cifar10', tmp_path / 'more', [
        f'http://x/y?z={archives[0].name}'], archives)


def test_known_urls_are_of_their_archives():
  for source in archives_lib.SOURCES.values():
    for archive in source.archives:
      assert archive.urls
      for url in archive.urls:
        assert re.fullmatch(rf'https://[\w.-]+/(\S+/)?{archive.name}', url)


def test_without_a_source_the_message_tells_the_ways_out(tmp_path, archives):
  archives = tuple(
      archives_lib.Archive(a.name, a.size, a.md5,
                           (f'http://127.0.0.1:1/{a.name}',))
      for a in archives)
  (tmp_path / archives[1].name).write_bytes(b'half an archive')
  with pytest.raises(UserError) as error:
    datasets.ensure('cifar10', tmp_path, archives=archives)
  message = str(error.value)
  assert (f'{tmp_path}/cifar-10-binary.tar.gz: has 15 bytes, expected '
          f'{archives[1].size:,}') in message
  for expected in ('http://127.0.0.1:1/cifar-10-python.tar.gz: ', 'refused',
                   f'copy cifar-10-python.tar.gz or cifar-10-binary.tar.gz to '
                   f'{tmp_path}/', '--data_url', '--dataset=synthetic'):
    assert expected in message
  assert (tmp_path / archives[1].name).read_bytes() == b'half an archive'


def test_extraction_stays_in_its_directory(tmp_path, archives):
  evil = make_archive(tmp_path / 'mirror' / 'cifar-10-binary.tar.gz', {
      **BINARY, '../../escaped': b'x', '/tmp/escaped_test_batch.bin': b'x',
      'cifar-10-batches-bin/../../batches.meta.txt':
          BINARY['cifar-10-batches-bin/batches.meta.txt']})
  data_dir = tmp_path / 'data'
  assert_complete(datasets.ensure('cifar10', data_dir, archives=[evil]),
                  data_dir)
  assert sorted(os.listdir(tmp_path)) == ['data', 'mirror']
  assert not os.path.exists('/tmp/escaped_test_batch.bin')
  assert sorted(os.listdir(data_dir)) == [
      '.lock', 'cifar-10-batches-bin']
  assert len(glob.glob(f'{data_dir}/cifar-10-batches-bin/*')) == 8


def test_an_archive_that_lacks_a_batch_leaves_nothing(tmp_path):
  files = dict(BINARY)
  del files['cifar-10-batches-bin/data_batch_3.bin']
  archive = make_archive(tmp_path / 'cifar-10-binary.tar.gz', files)
  with pytest.raises(UserError, match='binary.tar.gz: has no data_batch_3'):
    datasets.ensure('cifar10', tmp_path, archives=[archive])
  assert not (tmp_path / 'cifar-10-batches-bin').exists()


class RunsCode:

  def __reduce__(self):
    return os.mkdir, ('was_here',)


@pytest.mark.parametrize('content, message', [
    (pickle.dumps(RunsCode()), 'posix.mkdir is not for a batch'),
    (pickle.dumps([1, 2]), 'holds a list, expected a dict'),
    (pickle.dumps({}), 'is not a batch of CIFAR-10 images'),
    (pickled({b'data': np.zeros([2, 3072], np.uint8), b'labels': [1]}),
     'is not a batch of CIFAR-10 images'),
    (PICKLED['cifar-10-batches-py/data_batch_2'][:-100], 'cannot be unpickled'),
    (b'', 'cannot be unpickled'),
])
def test_bad_pickles(tmp_path, monkeypatch, content, message):
  monkeypatch.chdir(tmp_path)
  write_files(tmp_path, PICKLED)
  write_files(tmp_path, {'cifar-10-batches-py/data_batch_2': content})
  with pytest.raises(UserError, match=f'data_batch_2: .*{message}'):
    datasets.ensure('cifar10', tmp_path, archives=())
  assert not (tmp_path / 'cifar-10-batches-bin').exists()
  assert not (tmp_path / 'was_here').exists()


def test_an_unknown_name(tmp_path):
  with pytest.raises(UserError, match="no dataset 'Synthetic'. Did you"):
    datasets.ensure('Synthetic', tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
  write_files(tmp_path, BINARY)
  directory = tmp_path / 'cifar-10-batches-bin'
  with (directory / 'data_batch_4.bin').open('r+b') as f:
    f.seek(2 * 3073)
    f.write(bytes([77]))
  with pytest.raises(UserError, match=r'data_batch_4.bin: record 2 \(byte 6146'
                     r'\) has label 77, expected 0 to 9'):
    datasets.ensure('cifar10', tmp_path)
  (directory / 'test_batch.bin').unlink()
  with pytest.raises(UserError, match='test_batch.bin: is missing'):
    datasets.ensure('cifar10', tmp_path)


def test_any_number_of_files_in_the_order_of_their_numbers(tmp_path):
  record = RECORDS['test_batch'][:1].tobytes()
  write_files(tmp_path / 'cifar-10-batches-bin', {
      name: record for name in ('data_batch_10.bin', 'data_batch_9.bin',
                                'data_batch_9.bin.orig', 'test_batch.bin')})
  data = datasets.ensure('cifar10', tmp_path)
  assert [os.path.basename(path) for path in data.train.paths] == [
      'data_batch_9.bin', 'data_batch_10.bin']
  assert data.format.class_names[0] == 'airplane'


def test_synthetic_data_has_the_same_format(tmp_path):
  data = datasets.ensure('synthetic', tmp_path)
  assert len(data.train) == 8000 and len(data.test) == 2000
  assert data.format.class_names[1] == 'striped disc'
  assert data.directory == str(tmp_path / 'synthetic')


# The second process waits for the lock; the first is killed while it holds it.
PREPARE = '''
import sys, time
from cifar10.data import datasets
from cifar10.data import records
slow = float(sys.argv[2])
make = datasets.synthetic.make
def slow_make(*args, **kwargs):
  print("making", flush=True)
  time.sleep(slow)
  return make(*args, **kwargs)
datasets.synthetic.make = slow_make
print(datasets.ensure("synthetic", sys.argv[1]).name)
'''


def test_a_killed_process_leaves_neither_lock_nor_data(start, tmp_path):
  killed = start(PREPARE, str(tmp_path), '60')
  killed.expect('making\n')
  (tmp_path / 'synthetic.part').mkdir()
  (tmp_path / 'synthetic.part' / 'data_batch_9.bin').write_bytes(b'half')
  waiting = start(PREPARE, str(tmp_path), '0')
  waiting.expect('is at work there: waiting', 'err')
  assert f'process {killed.pid} on ' in waiting.err
  assert not (tmp_path / 'synthetic').exists()
  killed.kill()
  assert waiting.end() == 0, waiting.err
  assert waiting.out == 'making\nsynthetic\n'
  assert sorted(os.listdir(tmp_path)) == ['.lock', 'synthetic']
  assert len(glob.glob(f'{tmp_path}/synthetic/*')) == 7


def test_program_prints_what_is_there(run_program, data_dir):
  code, out, _ = run_program('dataset', f'--data_dir={data_dir}')
  assert code == 0
  assert 'data_batch_1.bin: 200 records' in out
  assert ('cifar10: 300 records to train on, 130 to evaluate on, of 32x32 '
          'pixels, 10 classes: airplane, automobile') in out


def test_program_without_network(run_program, tmp_path):
  code, out, err = run_program(
      'dataset', f'--data_dir={tmp_path}',
      '--data_url=http://127.0.0.1:1/cifar-10-binary.tar.gz')
  assert code == 1 and out == ''
  assert 'error: there is no CIFAR-10 in' in err
  assert 'Traceback' not in err
