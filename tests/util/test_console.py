"""Printing that never fails, and signals: of small programs and real ones."""

import os
import signal
import subprocess
import sys
import types

import pytest

from cifar10 import train
from cifar10.runs import description
from cifar10.util import console
from tests.conftest import Program
from tests.conftest import read_checkpoint
from tests.conftest import read_lines_until
from tests.conftest import with_batch_size


@pytest.mark.parametrize('seconds, text', [
    (0.4, '0s'), (42, '42s'), (485, '8m 05s'), (3599.9, '1h 00m'),
    (11220, '3h 07m')])
def test_duration(seconds, text):
  assert console.duration(seconds) == text


def script(text, shell='', **options):
  """Runs Python code that has `console`, in a shell's redirections."""
  text = f'import sys\nfrom cifar10.util import console\n{text}'
  options = {'capture_output': True, 'text': True, 'timeout': 60, **options}
  return subprocess.run(
      ['bash', '-c', f'"$0" -c "$1" {shell}', sys.executable, text], **options)


LINES = '''
for i in range(20):
  print('line', i, flush=True)
print('the end', console.has_reader(), console.is_complete(), file=sys.stderr)
'''
PREPARED = 'console.prepare_streams()\n'


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_nothing_is_lost_when_the_disk_is_full(unbuffered):
  result = script(PREPARED + LINES, '> /dev/full',
                  env={**os.environ, 'PYTHONUNBUFFERED': unbuffered})
  assert result.stderr.splitlines() == [
      'standard output: No space left on device: going on in standard error',
      *(f'line {i}' for i in range(20)), 'the end True False']


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_without_a_reader_what_follows_goes_to_standard_error(unbuffered):
  result = script(f'''
import os
reader, writer = os.pipe()
os.dup2(writer, 1)
console.prepare_streams()
print('is read', console.has_reader(), flush=True)
print(os.read(reader, 99), file=sys.stderr)
os.close(reader)
print('is lost', flush=True)
{LINES}''', env={**os.environ, 'PYTHONUNBUFFERED': unbuffered})
  assert result.stderr.splitlines() == [
      r"b'is read True\n'", *(f'line {i}' for i in range(20)),
      'the end False True']


@pytest.mark.parametrize('shell', ['>&-', '2>&-', '>&- 2>&- <&-',
                                   '> /dev/full 2>&1'])
def test_programs_end_well_whatever_the_streams(tmp_path, shell):
  """And no file that they open gets the text of a closed stream."""
  result = script(PREPARED + LINES + f'''
open({str(tmp_path / 'file')!r}, 'w').write('mine')
print('more', flush=True)
print('more', file=sys.stderr, flush=True)
''', shell)
  assert result.returncode == 0
  assert (tmp_path / 'file').read_text() == 'mine'
  assert 'Traceback' not in result.stdout + result.stderr


def test_characters_that_the_encoding_lacks():
  result = script('''
console.prepare_streams()
print('Füße', flush=True)
print('\\udcff', file=sys.stderr, flush=True)
''', env={**os.environ, 'PYTHONIOENCODING': 'ascii'})
  assert (result.stdout, result.stderr) == ('F\\xfc\\xdfe\n', '\\udcff\n')


@pytest.mark.parametrize('number', console._SIGNALS)
def test_signals_are_received_and_end_the_program_afterwards(number):
  before = signal.getsignal(number)
  with pytest.raises(SystemExit) as error:
    with console.received_signals() as signals:
      os.kill(os.getpid(), number)
      assert signals == [number]
  assert error.value.code == 128 + number
  assert signal.getsignal(number) == before


def test_the_second_ctrl_c_ends_what_does_not_end():
  signal.signal(signal.SIGINT, signal.default_int_handler)
  with pytest.raises(KeyboardInterrupt):
    with console.received_signals() as signals:
      os.kill(os.getpid(), signal.SIGINT)
      assert signals == [signal.SIGINT]
      os.kill(os.getpid(), signal.SIGINT)


def test_progress(monkeypatch, capsys):
  """Of 200 images, 20 of which were done before; then of bytes."""
  now = [100.0]
  monkeypatch.setattr(console, 'time', types.SimpleNamespace(
      monotonic=lambda: now[0]))
  progress = console.Progress(200, 'images', 20)
  for now[0], position in (105, 30), (110, 40), (115, 50), (140, 180), (
      141, 200):
    progress.report(position)
  assert capsys.readouterr().err == (
      '   20.0%  2 images/s  1m 20s left   \n'
      '   90.0%  4 images/s  5s left   \n'
      '  100.0%  4 images/s  0s left   \n')
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  progress = console.Progress(10_000_000, 'MB')
  for now[0], position in (141.2, 100), (142, 5_000_000), (143, 10_000_000):
    progress.report(position)
  assert capsys.readouterr().err == (
      '   50.0%  5.00 MB/s  1s left   \r'
      '  100.0%  5.00 MB/s  0s left   \n')


def test_ignored_signals_stay_ignored():
  """As of a program that nohup starts."""
  result = script('''
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
console.raise_signals()
with console.received_signals() as signals:
  os.kill(os.getpid(), signal.SIGHUP)
  assert not signals
print('goes on')
''')
  assert (result.returncode, result.stdout) == (0, 'goes on\n'), result.stderr


@pytest.mark.parametrize('number, code', [
    (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_clean_up_outside_of_trainings(number, code):
  result = script(f'''
import os, signal
console.raise_signals()
try:
  os.kill(os.getpid(), {int(number)})
finally:
  print('cleaned up')
''')
  assert (result.returncode, result.stdout) == (code, 'cleaned up\n')


def test_ctrl_c_when_the_reader_has_ended_already(spawn, data_dir, tmp_path):
  """As in `train | tee log`, where Ctrl-C ends both."""
  process = spawn('train', '--network=softmax', '--batch_size=4',
                  '--log_frequency=1', f'--data_dir={data_dir}',
                  f'--train_dir={tmp_path}/train', '--max_steps=1000000')
  read_lines_until(process, ' step 3, ')
  process.stdout.close()
  # Steps go on, and are printed to standard error.
  read_lines_until(process, ' step ', 'stderr')
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  err = process.stderr.read()
  step, = (line.split(' at step ')[1].split(' ')[0] for line in err.splitlines()
           if line.startswith('SIGINT: stopped and saved at step '))
  assert read_checkpoint(f'{tmp_path}/train/model.ckpt-{step}')[
      'global_step'] == int(step) > 4
  assert 'Traceback' not in err and 'Broken pipe' not in err


def test_closed_streams_lose_no_evaluation(data_dir, tmp_path):
  def close():
    for number in range(3):
      os.close(number)

  environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '0'}
  for name, arguments in (
      ('train', ['--network=softmax', '--batch_size=4', '--max_steps=2',
                 f'--data_dir={data_dir}', f'--train_dir={tmp_path}/train']),
      ('eval', ['--run_once', f'--checkpoint_dir={tmp_path}/train',
                f'--eval_dir={tmp_path}/eval'])):
    code = subprocess.run([sys.executable, '-m', f'cifar10.{name}', *arguments],
                          preexec_fn=close, env=environment,
                          timeout=120).returncode
    assert code == 0
  assert description.load(tmp_path / 'train').max_steps == 2
  assert (tmp_path / 'eval' / 'report.json').exists()
  lock = (tmp_path / 'train' / '.lock').read_text()
  assert lock.startswith('process ') and '\n' not in lock


def test_ctrl_c_while_tensorflow_is_imported():
  process = subprocess.Popen(
      [sys.executable, '-X', 'importtime', '-m', 'cifar10.train'],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  read_lines_until(process, 'tensorflow.python.eager.context', 'stderr')
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert process.returncode == -signal.SIGINT
  assert out == '' and 'Traceback' not in err and 'Interrupt' not in err


@pytest.mark.parametrize('number, code', [
    (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_during_an_export_leaves_nothing(data_dir, tmp_path, number,
                                                  code):
  run = train.train(with_batch_size(
      4, network='softmax', max_steps=1, data_dir=data_dir,
      train_dir=str(tmp_path / 'train')))
  program = Program(f'''
import os, runpy, sys
import tensorflow.compat.v1 as tf

def be_stopped(directory):
  open(directory + '/half', 'w').close()
  os.kill(os.getpid(), {int(number)})

tf.saved_model.Builder = be_stopped
sys.argv = ['export', '--checkpoint_dir={run.train_dir}',
            '--export_dir={tmp_path}/export']
runpy.run_module('cifar10.export', run_name='__main__', alter_sys=True)
''')
  assert program.end() == code, program.err
  assert 'Traceback' not in program.err
  assert os.listdir(tmp_path / 'export') == []
