"""Files of strangers: what they ask for, the real programs refuse, in bounded
memory and time, and do the rest of their work."""

import os

import numpy as np
from PIL import Image
import pytest

from cifar10 import train
from tests.data.test_image_decoders import gif
from tests.data.test_image_decoders import jpeg
from tests.data.test_image_decoders import TOO_LARGE

# Runs a program, and prints the memory that it took at most, in MB.
MEASURED = '''
import resource, runpy, sys
sys.argv = %r
try:
  runpy.run_module(f'cifar10.{sys.argv[0]}', run_name='__main__')
finally:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
  print(f'peak {peak}', flush=True)
'''


def sparse(size):
  return lambda path: path.open('wb').truncate(size)


def bytes_of(content):
  return lambda path: path.write_bytes(content)


# What is where a picture should be, by its name: how to make it, and the
# reason that is given.
ATTACKS = {
    'pipe.png': (os.mkfifo, 'is not a regular file'),
    'pipe2.png': (os.mkfifo, 'is not a regular file'),
    'endless.png': (lambda path: path.symlink_to('/dev/zero'),
                    'is not a regular file'),
    'huge.png': (sparse(50 << 30), 'has 53,687,091,200 bytes, expected up to '),
    'huge2.png': (sparse(50 << 30), 'has 53,687,091,200 bytes, expected up to'),
    'program.jpg': (bytes_of(b'#!/bin/sh\nrm -rf /\n'), 'Unknown image file'),
    'scans.jpg': (bytes_of(jpeg(8, 8, b'\xff\xda\0\2' * 99)), ' scans, expect'),
    'ends.gif': (bytes_of(gif()[:40]), 'holds no complete picture'),
    'red\x1b[31m\x9b7m.png': (bytes_of(b''), 'Input is empty'),
    'two\nerror: lines.png': (bytes_of(b''), 'Input is empty'),
    'over\rwritten.png': (bytes_of(b''), 'Input is empty'),
    **{f'large.{name}': (bytes_of(content), 'pixels, expected 1 to 100,000,000')
       for name, content in TOO_LARGE.items()}}


@pytest.fixture
def pictures(tmp_path):
  """Two folders of five pictures each, and the attacks in the first of them."""
  for number, name in enumerate('ab'):
    folder = tmp_path / 'pictures' / name
    folder.mkdir(parents=True)
    for i in range(5):
      pixels = np.full((40, 40, 3), 50 * i + number, np.uint8)
      Image.fromarray(pixels).save(folder / f'{i}.png')
  for name, (make, _) in ATTACKS.items():
    make(tmp_path / 'pictures' / 'a' / name)
  return tmp_path / 'pictures'


def run(start, *arguments):
  """Returns exit code, stdout and stderr of a program that takes less than 1 GB
  of memory."""
  program = start(MEASURED % list(arguments))
  code = program.end()
  out, _, peak = program.out.rpartition('peak ')
  assert int(peak) < 1000, program.err
  assert not {'\x1b', '\x9b', '\r'} & {*program.out, *program.err}
  return code, out, program.err


def assert_each_has_its_reason(err, but=None):
  lines = err.splitlines()
  for name, (_, reason) in ATTACKS.items():
    if reason == but:
      continue
    shown = name.translate({ord(c): repr(c)[1:-1] for c in '\x1b\x9b\n'}
                           ).replace('\r', '\\x0d')
    assert [reason in line for line in lines if f'/{shown}: ' in line] == [
        True], (name, lines)


def test_predict(start, pictures, make_small_run):
  trained = train.train(make_small_run(max_steps=1))
  code, out, err = run(start, 'predict', str(pictures),
                       f'--checkpoint_dir={trained.train_dir}')
  assert code == 1
  assert out.count('%') == 3 * 10
  assert f'{len(ATTACKS)} of {len(ATTACKS) + 10} files could not be rea' in err
  assert_each_has_its_reason(err)


def test_import(start, pictures, tmp_path):
  code, out, err = run(start, 'dataset', f'--import_dir={pictures}',
                       f'--data_dir={tmp_path}')
  assert code == 0, err
  assert 'own: 8 records to train on, 2 to evaluate on' in out
  assert 'pictures: 3 files are not pictures in folders' in err
  assert_each_has_its_reason(err, but='is not a regular file')


@pytest.mark.parametrize('lines, message', [
    (['/dev/zero,a', *(f'a/{i}.png,a' for i in range(5))],
     '/dev/zero: is not a regular file'),
    ([f'a/{i}.png,\x1b[31m' for i in range(5)],
     r"'\x1b[31m': expected the name of a class"),
    (['a/0.png,"a'] + ['x' * 1000] * 1000, 'field larger than'),
    (['a/0.png,a', 'a/1.png\0,a'], 'is no list of PATH,LABEL: it has null')])
def test_lists(start, pictures, tmp_path, lines, message):
  (pictures / 'list.csv').write_text('\n'.join(lines))
  code, _, err = run(start, 'dataset', f'--import_csv={pictures}/list.csv',
                     '--strict', f'--data_dir={tmp_path}')
  assert code == 1 and message in err, err
  assert 'Traceback' not in err


def test_classes_are_names_only(start, pictures, tmp_path):
  (pictures / 'list.csv').write_text('\n'.join(
      f'a/{i}.png,../../../{name}' for i in range(5) for name in ['escaped']))
  code, out, err = run(start, 'dataset', f'--import_csv={pictures}/list.csv',
                       f'--data_dir={tmp_path}/data')
  assert code == 0 and '1 classes: ../../../escaped' in out, err
  assert sorted(os.listdir(tmp_path)) == ['data', 'pictures']
  assert sorted(os.listdir(tmp_path / 'data' / 'own')) == [
      'batches.meta.txt', 'checksums.txt', 'data_batch_1.bin', 'format.json',
      'test_batch.bin']
