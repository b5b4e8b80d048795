"""Clusters: what TF_CONFIG may say, the input of hosts, and their life, with
real processes on this machine.

The ordinary suite kills a few times; after each checkpoint:

    python -m pytest -n 0 -m long tests/cluster/test_processes.py -s
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import threading
import time

import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10.cluster import processes as life
from cifar10.cluster import tf_config
from cifar10.runs import checkpoints
from cifar10.runs import preparation
from cifar10.util.errors import UserError
from tests import numerics
from tests.conftest import flags_of
from tests.conftest import Program
from tests.conftest import read_checkpoint

THREE = {'cluster': {'chief': ['h0:2222'], 'worker': ['h1:2222', 'h2:2222']},
         'task': {'type': 'worker', 'index': 1}}


def test_a_cluster_is_read_from_the_environment(monkeypatch):
  monkeypatch.setenv('TF_CONFIG', json.dumps({**THREE, 'environment': 'cloud'}))
  found = tf_config.from_environment()
  assert str(found.chief) == 'the chief (h0:2222)'
  assert [str(worker) for worker in found.workers] == [
      'worker 0 (h1:2222)', 'worker 1 (h2:2222)']
  assert found.me == found.workers[1]
  assert found.me.device == '/job:worker/task:1'


@pytest.mark.parametrize('text', [None, '', '  ', '{}',
                                  '{"task": {"type": "chief"}}'])
def test_without_a_cluster_there_is_none(monkeypatch, text):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  if text is not None:
    monkeypatch.setenv('TF_CONFIG', text)
  assert tf_config.from_environment() is None


@pytest.mark.parametrize('change, message', [
    ('{"cluster": ', 'is no JSON: Expecting value'),
    ('[1]', r'is \[1\]; expected {"cluster": {"chief": \["HOST:PORT"\]'),
    ({'cluster': ['h0:1']}, r'its cluster is \["h0:1"\]'),
    ({'task': None}, 'has no task with a type'),
    ({'task': {'index': 0}}, 'has no task with a type'),
    ({'task': {'type': 'evaluator', 'index': 0}},
     'is an evaluator: for that, run python -m cifar10.eval'),
    ({'task': {'type': 'worker', 'index': 2}},
     'the task is worker 2, which its cluster does not have'),
    ({'task': {'type': 'worker', 'index': '0'}}, 'the task is worker "0", '),
    ({'task': {'type': 'ps', 'index': 0}}, 'the task is ps 0, which'),
    ({'cluster': {'worker': ['h1:1', 'h2:1']}}, 'has no chief, or several'),
    ({'cluster': {'chief': ['h0:1', 'h1:1']}}, 'has no chief, or several'),
    ({'cluster': {'chief': ['h0:1'], 'ps': ['h1:1']}}, "has the job 'ps'"),
    ({'cluster': {'chief': 'h0:1'}}, 'chief is "h0:1"'),
    ({'cluster': {'chief': ['h0']}}, r'chief is \["h0"\]'),
    ({'cluster': {'chief': ['h0:70000']}}, r'chief is \["h0:70000"\]'),
    ({'cluster': {'chief': ['h0:1'], 'worker': [7]}}, r'worker is \[7\]'),
    ({'cluster': {'chief': ['h0:1'], 'worker': ['h1:1', 'h1:1']}},
     'an address is there twice: h0:1, h1:1, h1:1')])
def test_what_tf_config_may_not_be(monkeypatch, change, message):
  monkeypatch.setenv('TF_CONFIG', change if isinstance(change, str)
                     else json.dumps({**THREE, **change}))
  with pytest.raises(UserError, match='TF_CONFIG: .*' + message) as e:
    tf_config.from_environment()
  assert '\n' not in str(e.value)


@pytest.fixture
def cluster_graph(make_run):
  """The graph of two hosts with two GPUs each, which need not be there."""
  run, data = preparation.prepare(make_run(num_towers=4, batch_size=3))
  hosts = '/job:chief/task:0', '/job:worker/task:0'
  devices = [f'{host}/gpu:{i}' for host in hosts for i in range(2)]
  there = dataclasses.replace(data.train,
                              paths=('/there/a.bin', '/there/b.bin'))
  with tf.Graph().as_default() as graph, tf.device(hosts[0]):
    multi_gpu_train.build(run, data, devices, files={hosts[1]: there})
  return graph


def test_each_host_makes_the_input_of_its_towers(cluster_graph):
  found = collections.defaultdict(set)
  for op in cluster_graph.get_operations():
    if op.type in ('IteratorV2', 'Conv2D', 'FlatMapDataset'):
      found[op.type].add(op.device)
  hosts = '/job:chief/task:0', '/job:worker/task:0'
  assert found['IteratorV2'] == {f'{host}/device:CPU:0' for host in hosts}
  assert found['FlatMapDataset'] == found['IteratorV2']
  assert found['Conv2D'] == {f'{host}/device:GPU:{i}' for host in hosts
                             for i in range(2)}
  function, = (op.get_attr('f').name for op in cluster_graph.get_operations()
               if op.type == 'FlatMapDataset' and 'worker' in op.device)
  read, = (function_def.node_def for function_def in
           cluster_graph.as_graph_def().library.function
           if function_def.signature.name == function)
  assert [node.attr['memory_region_name'].s.decode() for node in read
          if node.op == 'ImmutableConst'] == ['/there/a.bin', '/there/b.bin']


class Processes:
  """A chief and two workers of two towers each, on this machine."""

  def __init__(self, run, data_dirs):
    self._run, self._data_dirs = run, data_dirs
    sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(3)]
    addresses = [f'127.0.0.1:{s.getsockname()[1]}' for s in sockets]
    for s in sockets:
      s.close()
    self.addresses = addresses
    self._cluster = {'chief': addresses[:1], 'worker': addresses[1:]}
    self.programs = [None] * 3

  def start(self, *numbers):
    """Starts the chief, 0, or a worker, 1 or 2."""
    for i in numbers:
      task = {'type': 'worker', 'index': i - 1} if i else {
          'type': 'chief', 'index': 0}
      run = dataclasses.replace(self._run, num_towers=2,
                                data_dir=self._data_dirs[i])
      self.programs[i] = Program(
          'multi_gpu_train', *flags_of(run), TF_CONFIG=json.dumps(
              {'cluster': self._cluster, 'task': task}))

  def kill(self, number):
    self.programs[number].kill()

  def end(self, timeout=120):
    """Waits for the end of all; returns their exit codes."""
    deadline = time.monotonic() + timeout
    return [program.end(max(deadline - time.monotonic(), 0))
            for program in self.programs if program]


@pytest.fixture
def processes(tmp_path, data_dir):
  """Makes `Processes` of `Options`, each of which finds the data in a directory
  of its own, and ends them with the test."""
  made = []

  def make(options):
    data_dirs = [tmp_path / f'data_{i}' for i in range(3)]
    for directory in data_dirs:
      shutil.copytree(data_dir, directory, dirs_exist_ok=True)
    made.append(Processes(options, data_dirs))
    return made[-1], data_dirs

  yield make
  for p in made:
    for program in p.programs:
      if program:
        program.kill()


def check_equals_one_process(options, tmp_path):
  """Compares the end with that of six towers in this process."""
  alone = dataclasses.replace(options, train_dir=str(tmp_path / 'alone'))
  multi_gpu_train.train(alone, ['/cpu:0'] * 6)
  expected, found = (
      read_checkpoint(f'{run.train_dir}/model.ckpt-{options.max_steps}')
      for run in (alone, options))
  assert found.keys() == expected.keys()
  for name in expected:
    # Towers run the same kernels on the same numbers, wherever they are: only
    # their six gradients may be added up in another order. In 16 bits, that can
    # round a weight to the next number where the next step takes it.
    terms = 6 if options.dtype == 'float32' else 1
    numerics.assert_close(found[name], expected[name], terms,
                          options.max_steps, options.dtype, name=name)


def test_a_cluster_equals_one_machine_whatever_happens(
    processes, make_small_run, tmp_path):
  """The life of one: the chief comes first; a worker is killed, then the chief;
  both come back; and the chief once more, after the end."""
  options = make_small_run(max_steps=200, checkpoint_steps=10, log_frequency=1,
                           batch_size=2)
  p, _ = processes(options)
  p.start(0)
  chief = p.programs[0]
  chief.expect(f'waiting for worker 0 ({p.addresses[1]}), worker 1 ('
               f'{p.addresses[2]})')
  p.start(1)
  chief.expect(f'waiting for worker 1 ({p.addresses[2]})\n')
  p.start(2)
  worker = p.programs[2]
  worker.expect('serves the chief')
  chief.expect(': step 20,')
  p.kill(1)
  chief.expect(f'lost worker 0 ({p.addresses[1]})')
  chief.expect(f'waiting for worker 0 ({p.addresses[1]})\n')
  p.start(1)
  chief.expect('Resuming at step ')
  chief.expect(': step 80,')
  p.kill(0)
  for i in 1, 2:
    p.programs[i].expect('is not there: waiting for it')
  p.start(0)
  assert p.end() == [0, 0, 0], p.programs[0].err
  assert 'Resuming at step ' in p.programs[0].out
  assert worker.out.count('serves the chief') >= 2
  assert worker.out.rstrip().endswith('has ended, and so does this')
  for program in p.programs:
    assert 'without a password' in program.out
    assert 'Traceback' not in program.err
  p.start(0)
  assert p.programs[0].end() == 0
  assert 'is at step 200 already' in p.programs[0].out
  assert 'waiting' not in p.programs[0].out
  check_equals_one_process(options, tmp_path)


def test_statistics_and_batch_norm_in_bfloat16(processes, make_run, tmp_path):
  """airnet's input needs values of the chief's variables on each host. Here a
  worker is lost before there is a checkpoint."""
  options = make_run(network='airnet_small', dtype='bfloat16', max_steps=12,
                     batch_size=4, log_frequency=1)
  p, _ = processes(options)
  p.start(0, 1, 2)
  p.programs[0].expect(': step 0,')
  p.kill(2)
  p.start(2)
  assert p.end() == [0, 0, 0], p.programs[0].err
  assert 'lost worker 1' in p.programs[0].out
  assert p.programs[0].out.count(': step 0,') == 2
  check_equals_one_process(options, tmp_path)


def test_signals_to_the_chief(processes, make_small_run):
  """Workers wait for the next one after SIGTERM, and end with Ctrl-C."""
  p, _ = processes(make_small_run(max_steps=100000, log_frequency=1))
  p.start(2, 1, 0)
  p.programs[0].expect(': step 3,')
  p.programs[0].send(signal.SIGTERM)
  assert p.programs[0].end() == 128 + signal.SIGTERM
  for i in 1, 2:
    p.programs[i].expect('is not there: waiting for it')
  p.start(0)
  p.programs[0].expect('Resuming at step ')
  p.programs[0].expect(': step ')
  p.programs[0].send(signal.SIGINT)
  assert p.end() == [128 + signal.SIGINT, 0, 0]
  assert re.search(r'SIGINT: stopped and saved at step \d+',
                   p.programs[0].out)


def test_ctrl_c_while_a_worker_is_missing(processes, make_small_run):
  p, _ = processes(make_small_run())
  p.start(0, 1)
  p.programs[0].expect(f'waiting for worker 1 ({p.addresses[2]})\n')
  p.programs[0].send(signal.SIGINT)
  assert p.end() == [128 + signal.SIGINT, 0]
  assert re.search(r'worker 1 .* could not be told to end: does not answer$',
                   p.programs[0].out)
  assert 'Traceback' not in p.programs[0].err


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_to_a_worker(processes, make_small_run, number):
  p, _ = processes(make_small_run())
  p.start(1)
  p.programs[1].expect('is not there: waiting for it')
  p.programs[1].send(number)
  assert p.end() == [128 + number]


def test_a_server_that_says_nothing_is_not_there():
  with socket.create_server(('127.0.0.1', 0)) as server:
    task = tf_config.Task('worker', 0, f'127.0.0.1:{server.getsockname()[1]}')
    assert not task.listens()
  assert not task.listens()


@pytest.fixture
def chief(monkeypatch):
  """A chief of one worker, and the event that it wants to start again."""
  monkeypatch.setattr(life, '_POLL_SECS', 0.01)
  monkeypatch.setattr(life, '_start_server', lambda cluster: tf.train.Server(
      {'local': ['127.0.0.1:0']}, start=False))
  chief, worker = (tf_config.Task(job, 0, 'h:1') for job in ('chief', 'worker'))
  restarted = threading.Event()
  return life.Chief(tf_config.Cluster(chief, (worker,), chief),
                    restarted.set), restarted


def test_a_worker_that_is_silent_is_lost(chief, monkeypatch, capsys):
  """The step that waits for it does not end. One answer is enough to stay."""
  chief, restarted = chief
  answers = [True] + [False] * 7 + [True] + [False] * 8
  asked = itertools.count()
  monkeypatch.setattr(
      tf_config.Task, 'listens',
      lambda task: not restarted.is_set() and answers[next(asked)])
  chief.train(lambda target: restarted.wait(60))
  assert restarted.is_set()
  assert next(asked) == len(answers)
  assert ': lost worker 0 (h:1): starting again\n' in capsys.readouterr().out


@pytest.mark.parametrize('sent', [[], [signal.SIGTERM], [signal.SIGINT]])
def test_a_worker_that_is_lost_after_a_signal_is_not_waited_for(
    chief, monkeypatch, sent):
  """Schedulers send it to all processes of a cluster."""
  chief, restarted = chief
  monkeypatch.setattr(tf_config.Task, 'listens', lambda task: True)

  def train(target):
    for number in sent:
      os.kill(os.getpid(), number)
    raise tf.errors.UnavailableError(None, None, 'gone')

  with pytest.raises(SystemExit) if sent else contextlib.nullcontext() as e:
    chief.train(train)
  if sent:
    assert e.value.code == 128 + sent[0]
  assert restarted.is_set() == (not sent)


@pytest.mark.parametrize('is_explained', [False, True])
@pytest.mark.parametrize('error, is_a_loss', [
    (tf.errors.AbortedError, True), (tf.errors.UnavailableError, True),
    (tf.errors.InvalidArgumentError, False),
    (tf.errors.ResourceExhaustedError, False)])
def test_only_the_loss_of_a_worker_starts_again(chief, monkeypatch, error,
                                                is_a_loss, is_explained):
  """Any other error would come again, and again."""
  chief, restarted = chief
  monkeypatch.setattr(tf_config.Task, 'listens', lambda task: True)

  def train(target):
    try:
      raise error(None, None, 'of a step')
    except tf.errors.OpError as e:
      if is_explained:
        raise UserError('of a step') from e
      raise

  with contextlib.nullcontext() if is_a_loss else pytest.raises(
      (UserError, error), match='of a step'):
    chief.train(train)
  assert restarted.is_set() == is_a_loss


def test_an_address_of_ipv6():
  try:
    server = socket.create_server(('::1', 0), family=socket.AF_INET6)
  except OSError:
    pytest.skip('no IPv6 here')

  def answer():
    with server, server.accept()[0] as connection:
      connection.sendall(b'!')

  thread = threading.Thread(target=answer)
  thread.start()
  assert tf_config.Task('worker', 0, f'[::1]:{server.getsockname()[1]}'
                        ).listens()
  thread.join()


def change(data_dir):
  """Changes a pixel of a training record."""
  path = data_dir / 'cifar-10-batches-bin/data_batch_2.bin'
  content = bytearray(path.read_bytes())
  content[5] ^= 1
  path.write_bytes(content)


def test_a_worker_that_comes_back_with_other_data(processes, make_small_run):
  p, data_dirs = processes(make_small_run(max_steps=10**6, log_frequency=1))
  p.start(0, 1, 2)
  p.programs[0].expect(': step 1,')
  p.kill(2)
  change(data_dirs[2])
  p.start(2)
  assert p.end() == [1, 1, 1]
  assert 'training records with the checksum' in p.programs[2].err


def test_a_worker_whose_data_changes_ends(processes, make_small_run):
  p, data_dirs = processes(make_small_run(max_steps=10**6, log_frequency=1))
  p.start(0, 1, 2)
  p.programs[0].expect(': step 1,')
  change(data_dirs[2])
  assert p.programs[2].end() == 1
  assert p.programs[2].err.startswith(
      f'error: {data_dirs[2]}/cifar-10-batches-bin: the record files have '
      'changed while they were in use\n')
  p.programs[0].expect('waiting for worker 1 ')


def test_a_worker_with_other_data_is_told(processes, make_small_run):
  p, data_dirs = processes(make_small_run())
  change(data_dirs[2])
  p.start(0, 1, 2)
  assert p.end() == [1, 1, 1]
  problem = re.compile(
      rf'worker 1 \(.*\), data in {data_dirs[2]}/cifar-10-batches-bin: '
      r'(.* training records with the checksum )(\w{8}), expected '
      r'\1(?!\2)\w{8}\n')
  assert re.fullmatch('error: ' + problem.pattern, p.programs[0].err)
  for program in p.programs[1:]:
    assert re.fullmatch(r'error: the chief \(.*\) ended: ' + problem.pattern,
                        program.err)


def test_an_address_that_is_taken(processes, make_small_run):
  p, _ = processes(make_small_run())
  with socket.create_server(('127.0.0.1', int(p.addresses[1].split(':')[1]))):
    p.start(1)
    assert p.programs[1].end() == 1
  # Some versions of gRPC have a line of their own to say.
  assert p.programs[1].err.splitlines()[-1].startswith(
      f'error: TF_CONFIG: cannot listen on {p.addresses[1]}: ')


@pytest.mark.long
def test_kill_after_each_checkpoint(processes, make_run, tmp_path):
  """The weights are those of a cluster that nobody kills, bit for bit. (After
  1,000 steps, those of one process differ by more than rounding: two orders of
  the same sum end 0.1 apart.)"""
  options = make_run(max_steps=1000, checkpoint_steps=50, log_frequency=10,
                     batch_size=2)
  undisturbed = dataclasses.replace(options, train_dir=str(tmp_path / 'other'))
  p, _ = processes(undisturbed)
  p.start(0, 1, 2)
  assert p.end(600) == [0, 0, 0]
  p, _ = processes(options)
  p.start(0, 1, 2)
  rng, killed, seen = random.Random(1), collections.Counter(), 0
  deadline = time.monotonic() + 3600
  while p.programs[0].is_alive:
    assert time.monotonic() < deadline, p.programs[0].out
    found = checkpoints.paths_in(str(tmp_path / 'train'))
    step = checkpoints.step_of(found[0]) if found else 0
    if seen < step < 1000:
      seen = step
      time.sleep(rng.uniform(0, 0.5))
      number = rng.randrange(3)
      if p.programs[0].is_alive:
        p.kill(number)
        time.sleep(rng.uniform(0, 3))
        p.start(number)
        killed[number] += 1
    time.sleep(0.01)
  assert p.end() == [0, 0, 0]
  print(f'\nkilled: the chief {killed[0]} times, workers '
        f'{killed[1] + killed[2]} times')
  expected, found = (read_checkpoint(f'{run.train_dir}/model.ckpt-1000')
                     for run in (undisturbed, options))
  for name in expected:
    assert (found[name] == expected[name]).all(), name
