"""Locks, full disks, directories that cannot be written to."""

import functools
import glob
import os
import resource
import shutil
import subprocess

import pytest

from cifar10 import train
from cifar10.util import filesystem
from cifar10.util.errors import UserError
from tests.conftest import assert_same_checkpoints
from tests.conftest import flags_of

EACH_STEP = {'batch_size': 4, 'checkpoint_steps': 2, 'summary_steps': 1}


@pytest.fixture
def disk(tmp_path):
  """A disk of its own, of 8 MB."""
  path = tmp_path / 'disk'
  path.mkdir()
  mounted = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(path)],
      capture_output=True, check=False)
  if mounted.returncode:
    pytest.skip('only root can mount a disk')
  yield path
  subprocess.run(['umount', '--lazy', str(path)], check=True)


def fill(disk, leave):
  """Takes all room on a disk but `leave` bytes, until the file is deleted."""
  path = disk / 'other things'
  path.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
  return path


# Runs a program without capabilities, so that permissions hold for root too.
WITHOUT_PRIVILEGES = '''
import ctypes, runpy, sys
version = (ctypes.c_uint32 * 2)(0x20080522)
assert ctypes.CDLL(None).capset(version, (ctypes.c_uint32 * 6)()) == 0
sys.argv = sys.argv[1:]
runpy.run_module(f'cifar10.{sys.argv[0]}', run_name='__main__', alter_sys=True)
'''


def test_the_second_trainer_refuses_and_names_the_first(
    make_small_run, start, run_program):
  run = make_small_run(log_frequency=1, max_steps=10**6)
  flags = flags_of(run)
  first = start('train', *flags)
  first.expect(' step 3, ')
  for program in 'train', 'multi_gpu_train':
    for more in [], ['--fresh']:
      code, out, err = run_program(program, *flags, *more)
      assert (code, out) == (1, '')
      assert err.startswith(f'error: {run.train_dir}: process {first.pid} on ')
      assert err.endswith(' is at work there\n')
  first.kill()
  code, out, err = run_program('train', *flags, '--max_steps=1')
  assert code == 0, err


def test_a_lock_is_free_again_after_an_exception(tmp_path):
  with pytest.raises(ZeroDivisionError):
    with filesystem.locked(tmp_path / 'new'):
      with pytest.raises(UserError, match=f'process {os.getpid()} on '):
        with filesystem.locked(tmp_path / 'new'):
          pass
      1 / 0
  with filesystem.locked(tmp_path / 'new'):
    pass


@pytest.mark.parametrize('leave, resumed', [
    (0, 2), (100_000, 2), (1_000_000, 2), (2_000_000, 4)])
def test_a_disk_that_fills_up(make_small_run, run_program, disk, leave,
                              resumed):
  whole = train.train(make_small_run(max_steps=6, **EACH_STEP))
  run = train.train(make_small_run(train_dir=str(disk / 'train'), max_steps=2,
                                   **EACH_STEP))
  other = fill(disk, leave)
  flags = flags_of(make_small_run(train_dir=run.train_dir, max_steps=6,
                                  **EACH_STEP))
  code, _, err = run_program('train', *flags)
  assert code == 1
  assert err.startswith(f'error: {disk}') and err.count('\n') == 1
  assert err.endswith('No space left on device\n')
  other.unlink()
  code, out, err = run_program('train', *flags)
  assert code == 0, err
  assert f'Resuming at step {resumed} of 6' in out
  assert_same_checkpoints(f'{run.train_dir}/model.ckpt-6',
                          f'{whole.train_dir}/model.ckpt-6')


@pytest.mark.parametrize('limit, grown', [
    (5_000, 'graph.pbtxt'), (1_000_000, 'model.ckpt-2.data'),
    (2_000_000, 'events')])
def test_files_that_must_not_grow(make_small_run, start, limit, grown):
  """TensorFlow takes this error for the end of the input."""
  run = make_small_run(max_steps=2000, **EACH_STEP)
  program = start('train', *flags_of(run))
  resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (limit, limit))
  assert program.end() == 1 and 'Traceback' not in program.err
  assert program.err.splitlines()[-1].startswith(
      f'error: {run.train_dir}/{grown}')
  assert program.err.endswith('File too large\n')


def test_a_full_disk_for_the_data_and_for_evaluation(
    run_program, make_small_run, disk):
  full = fill(disk, 1_000_000)
  code, out, err = run_program('dataset', '--dataset=synthetic',
                               f'--data_dir={disk}/data')
  assert (code, out) == (1, '')
  assert err.startswith(f'error: {disk}/data')
  assert err.endswith('No space left on device\n') and err.count('\n') == 1
  assert not (disk / 'data' / 'synthetic').exists()

  run = train.train(make_small_run(max_steps=1))
  full.unlink()
  fill(disk, 0)
  code, out, err = run_program('eval', f'--checkpoint_dir={run.train_dir}',
                               f'--eval_dir={disk}')
  assert code == 1
  assert err.startswith(f'error: {disk}/events') and err.count('\n') == 1
  assert err.endswith('No space left on device\n')


@pytest.mark.parametrize('why', ['Read-only file system', 'Permission denied'])
def test_directories_that_cannot_be_written_to(
    run_program, make_small_run, disk, why):
  run = train.train(make_small_run(train_dir=str(disk / 'train'), max_steps=2))
  before = {path: os.stat(path).st_mtime_ns
            for path in glob.glob(f'{run.train_dir}/*')}

  if why == 'Permission denied':
    for path in disk, disk / 'train', disk / 'train' / '.lock':
      path.chmod(0o555)
    run_program = functools.partial(run_program, WITHOUT_PRIVILEGES)
  else:
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)
  for program, *flags in (
      *(('train', *flags_of(make_small_run(train_dir=train_dir, max_steps=4)))
        for train_dir in (run.train_dir, f'{disk}/new')),
      ('eval', f'--checkpoint_dir={run.train_dir}', f'--eval_dir={disk}/eval'),
      ('dataset', '--dataset=synthetic', f'--data_dir={disk}/data')):
    code, _, err = run_program(program, *flags)
    assert code == 1 and 'Traceback' not in err
    assert err.splitlines()[-1].startswith(f'error: {disk}/')
    assert err.endswith(f': {why}\n')
  assert before == {path: os.stat(path).st_mtime_ns
                    for path in glob.glob(f'{run.train_dir}/*')}
