"""Data and helpers that the tests share."""

import contextlib
import dataclasses
import glob
import http.server
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator
import tensorflow.compat.v1 as tf

from cifar10 import model
from cifar10 import networks
from cifar10.data import records
from cifar10.data import synthetic
from cifar10.runs import description
from cifar10.util import gpus
from tests import forked


# Programs start without the signals that this one, in the background or under
# nohup, may have been started to ignore.
for _number in signal.SIGINT, signal.SIGHUP:
  if signal.getsignal(_number) == signal.SIG_IGN:
    signal.signal(_number, signal.SIG_DFL if _number == signal.SIGHUP
                  else signal.default_int_handler)


def _first_gpu():
  """Returns the first GPU that TensorFlow finds, as CUDA_VISIBLE_DEVICES has
  it; '' if there is none."""
  if not gpus.is_there():
    return ''
  found = subprocess.run(
      [sys.executable, '-c',
       'from cifar10.util import gpus; print(gpus.count())'],
      stdout=subprocess.PIPE, text=True, check=True).stdout
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '0')
  return visible.split(',')[0] if int(found) else ''


# The GPU of the tests marked `gpu`; '' if there is none. All other tests are of
# the CPU: a GPU rounds in other ways, and a plain tf.Session() takes all of its
# memory. Children find this done.
if 'TEST_GPU' not in os.environ:
  os.environ['TEST_GPU'] = _first_gpu()
  os.environ['CUDA_VISIBLE_DEVICES'] = ''
TEST_GPU = os.environ['TEST_GPU']

SMALL_RECIPE = dataclasses.replace(
    model.RECIPE, learning_rate=0.001, decayed_variables='.*/weights')


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  """A CIFAR-10 of 200 + 100 training and 130 test records, of shapes."""
  path = tmp_path_factory.mktemp('data')
  directory = path / 'cifar-10-batches-bin'
  directory.mkdir()
  images, labels = synthetic.make(430, seed=7)
  for name, part in (('data_batch_1.bin', slice(0, 200)),
                     ('data_batch_2.bin', slice(200, 300)),
                     ('test_batch.bin', slice(300, 430))):
    records.write(directory / name, images[part], labels[part])
  (directory / 'batches.meta.txt').write_text(
      '\n'.join(records.CIFAR10_CLASSES) + '\n\n')
  return str(path)


@pytest.fixture
def make_run(data_dir, tmp_path):
  """Makes `Options` of a short run with a directory of its own."""
  def make(batch_size=12, **arguments):
    return with_batch_size(batch_size, **{
        'train_dir': str(tmp_path / 'train'), 'data_dir': data_dir,
        'max_steps': 5, 'log_frequency': 1000, **arguments})
  return make


@pytest.fixture
def make_small_run(make_run):
  """As `make_run`, for tests of what is the same for any network: of one whose
  graph is built in a third of the time, trained as the tutorial's network."""
  def make(batch_size=12, **arguments):
    return make_run(batch_size, network='two_layer_fc', **{
        'recipe': SMALL_RECIPE, **arguments})
  return make


def with_batch_size(batch_size, **arguments):
  """Returns `Options` with another batch size than the recipe's."""
  options = description.Options(**arguments)
  recipe = options.recipe or networks.find(options.network).RECIPE
  return dataclasses.replace(options, recipe=dataclasses.replace(
      recipe, batch_size=batch_size))


def flags_of(options):
  """Returns the flags of a training with these `Options`."""
  recipe = changes(networks.find(options.network).RECIPE, options.recipe)
  values = {**changes(description.Options(), options), 'recipe': ','.join(
      f'{name}={value}' for name, value in recipe.items())}
  return [f"--{'num_gpus' if name == 'num_towers' else name}={value}"
          for name, value in values.items()]


def changes(before, after):
  """Returns the fields in which two dataclasses differ: name to value after."""
  return {name: value for name, value in vars(after).items()
          if value != vars(before)[name]}


@contextlib.contextmanager
def within(seconds, what):
  """Fails the test if what is done in the `with` takes longer."""
  def fail(*unused_args):
    pytest.fail(f'{what}: not within {seconds} seconds')

  before = signal.signal(signal.SIGALRM, fail)
  signal.alarm(seconds)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def read_lines_until(process, text, stream='stdout'):
  """Reads what a process writes until a line holds `text`; returns the line."""
  lines = []
  with within(120, f'{text!r} in {stream} of {process.args}'):
    for line in getattr(process, stream):
      lines.append(line)
      if text in line:
        return line
    _, err = process.communicate()
  return pytest.fail(f'no {text!r} in {lines}; stderr: {err}')


@pytest.fixture
def spawn():
  """Starts `python -m cifar10.NAME FLAGS...` with pipes, as `Popen` does, and
  ends it with the test."""
  processes = []

  def spawn_program(name, *arguments, **options):
    process = subprocess.Popen(
        [sys.executable, '-u', '-m', f'cifar10.{name}', *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}, **options)
    processes.append(process)
    return process

  yield spawn_program
  for process in processes:
    process.kill()
    with within(60, f'the end of {process.args}, which was killed'):
      process.communicate()


class Program:
  """A program, in a process forked from one that has imported TensorFlow: that
  takes longer than most tests."""

  def __init__(self, name, *arguments, **environment):
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['tensorflow.compat.v1'])
    self._out, self._err = (tempfile.NamedTemporaryFile('r') for _ in range(2))
    self._process = context.Process(target=forked.run_main, args=(
        name, arguments, environment, self._out.name, self._err.name))
    self._process.start()
    self.pid = self._process.pid

  @property
  def out(self):
    """What it has written to stdout so far."""
    self._out.seek(0)
    return self._out.read()

  @property
  def err(self):
    """What it has written to stderr, but for TensorFlow's log: 2.18 writes that
    whatever TF_CPP_MIN_LOG_LEVEL is."""
    self._err.seek(0)
    return re.sub(r'^(WARNING: All log messages before absl|[IWEF]\d{4} ).*\n',
                  '', self._err.read(), flags=re.MULTILINE)

  @property
  def is_alive(self):
    return self._process.is_alive()

  def expect(self, text, stream='out'):
    """Waits until it has written a text to stdout or, 'err', to stderr."""
    deadline = time.monotonic() + 120
    while True:
      waiting = self.is_alive and time.monotonic() < deadline
      if text in getattr(self, stream):
        return
      assert waiting, f'expected {text!r} of\n{self.out}\n{self.err}'
      time.sleep(0.005)

  def send(self, number):
    """Sends it a signal."""
    os.kill(self.pid, number)

  def end(self, timeout=120):
    """Waits for its end, and returns its exit code."""
    self._process.join(timeout)
    goes_on = self.is_alive
    self.kill()
    assert not goes_on, (
        f'goes on after {timeout:.0f} seconds:\n{self.out[-1000:]}\n{self.err}')
    return self._process.exitcode

  def kill(self):
    self._process.kill()
    self._process.join()


@pytest.fixture
def start():
  """Starts a `Program`, and ends it with the test."""
  programs = []

  def start_program(*arguments, **environment):
    programs.append(Program(*arguments, **environment))
    return programs[-1]

  yield start_program
  for program in programs:
    program.kill()


@pytest.fixture(scope='session')
def run_program():
  """Runs a program to its end; returns exit code, stdout and stderr."""
  def run(name, *arguments):
    program = Program(name, *arguments)
    return program.end(), program.out, program.err
  return run


@pytest.fixture(scope='session')
def help_texts(run_program):
  """What `--help` prints, by program."""
  return {program: run_program(program, '--help')[1]
          for program in ('train', 'multi_gpu_train', 'eval', 'predict',
                          'export', 'dataset', 'benchmark')}


@pytest.fixture
def serve():
  """Serves HTTP: serve(respond) returns the address; respond(handler) answers
  each GET."""
  servers = []

  def start_server(respond):
    class Handler(http.server.BaseHTTPRequestHandler):

      def do_GET(self):
        respond(self)

      def log_message(self, *unused_args):
        pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    servers.append(server)
    threading.Thread(target=server.serve_forever, args=[0.01],
                     daemon=True).start()
    return f'http://127.0.0.1:{server.server_port}'

  yield start_server
  for server in servers:
    server.shutdown()
    server.server_close()


def rows_of(files):
  """Returns the raw records in `RecordFiles`: uint8 [n, record_bytes]."""
  return np.concatenate([np.fromfile(path, np.uint8) for path in files.paths]
                        ).reshape(-1, files.format.record_bytes)


def images_of(files):
  """Returns the images in `RecordFiles`: uint8 [n, height, width, depth]."""
  return records.images(rows_of(files), files.format)


def assert_same_checkpoints(path_a, path_b):
  """Asserts that two checkpoints hold the same, bit for bit."""
  a, b = read_checkpoint(path_a), read_checkpoint(path_b)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def read_checkpoint(path):
  """Returns the arrays of a checkpoint by name."""
  reader = tf.train.load_checkpoint(str(path))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def summaries_of(directory):
  """Returns the summary values in the event files, by (tag, step)."""
  return {(value.tag, event.step): value
          for path in sorted(glob.glob(f'{directory}/events*'))
          for event in tf.train.summary_iterator(path)
          for value in event.summary.value}


def events_of(directory):
  """Returns what TensorBoard reads: scalars, histograms and encoded images, by
  (tag, step); each once, in the order of its steps. Speeds, which are another
  each time, are left out."""
  events = event_accumulator.EventAccumulator(directory, size_guidance={
      kind: 0 for kind in (event_accumulator.SCALARS, event_accumulator.IMAGES,
                           event_accumulator.HISTOGRAMS)})
  events.Reload()
  found = {}
  for kind, read, field in (
      ('scalars', events.Scalars, 'value'),
      ('histograms', events.Histograms, 'histogram_value'),
      ('images', events.Images, 'encoded_image_string')):
    for tag in sorted({*events.Tags()[kind]} - {'training/examples_per_sec'}):
      steps = [event.step for event in read(tag)]
      assert steps == sorted(set(steps))
      found.update({(kind, tag, event.step): getattr(event, field)
                    for event in read(tag)})
  return found


def scalars_of(directory):
  """Returns the scalars that TensorBoard reads, by (tag, step)."""
  return {(tag, step): value
          for (kind, tag, step), value in events_of(directory).items()
          if kind == 'scalars'}
