"""Clusters over a network: each host is a network namespace of this machine,
with a link of limited rate. Needs root, and `ip` and `tc` of iproute2:

    RATE=1gbit HOSTS=1,2,4,6 REDUCE_DTYPE=float32 python -m pytest -n 0 \
        -m long tests/cluster/test_links.py -s

The first test prints the time of a step. Nothing else should run meanwhile.
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from tests.conftest import flags_of
from tests.conftest import read_checkpoint
from tests.conftest import read_lines_until

pytestmark = pytest.mark.long

RATE = os.environ.get('RATE', '1gbit')
HOSTS = [int(count) for count in os.environ.get('HOSTS', '1,2,4,6').split(',')]
REDUCE_DTYPE = os.environ.get('REDUCE_DTYPE', 'float32')


def sh(commands):
  subprocess.run(['bash', '-ec', commands], check=True)


class Hosts:
  """Namespaces cifar10-0, cifar10-1, ... with the addresses 10.99.0.1, ...

  Their links meet in a bridge. A context manager, which ends the programs.
  """

  def __init__(self, count, rate):
    self._count, self._rate = count, rate
    self.programs = []

  def __enter__(self):
    sh('ip link add cifar10 type bridge; ip link set cifar10 up')
    for i in range(self._count):
      sh(f'''
        ip netns add cifar10-{i}
        ip link add cifar10-p{i} type veth peer name cifar10-e{i}
        ip link set cifar10-e{i} netns cifar10-{i}
        ip link set cifar10-p{i} master cifar10 up
        ip -n cifar10-{i} addr add 10.99.0.{i + 1}/24 dev cifar10-e{i}
        ip -n cifar10-{i} link set cifar10-e{i} up
        ip -n cifar10-{i} link set lo up
        limit="root tbf rate {self._rate} burst 256k latency 50ms"
        tc qdisc add dev cifar10-p{i} $limit
        ip netns exec cifar10-{i} tc qdisc add dev cifar10-e{i} $limit''')
    return self

  def __exit__(self, *unused_args):
    for program in self.programs:
      program.kill()
      program.wait()
    for i in range(self._count):
      sh(f'ip link del cifar10-p{i}; ip netns del cifar10-{i}')
    sh('ip link del cifar10')

  def start(self, options, is_cluster=True):
    """Starts a training with these `Options` on each host, all as one cluster,
    or each alone and with a train_dir of its own."""
    addresses = [f'10.99.0.{i + 1}:2222' for i in range(self._count)]
    for i, address in enumerate(addresses):
      cluster = {'chief': addresses[:1], 'worker': addresses[1:]}
      task = {'type': 'worker' if i else 'chief', 'index': max(i - 1, 0)}
      if not is_cluster:
        cluster, task = {'chief': [address]}, {'type': 'chief', 'index': 0}
        options = dataclasses.replace(
            options, train_dir=f'{options.train_dir}-{i}')
      self.programs.append(subprocess.Popen(
          ['ip', 'netns', 'exec', f'cifar10-{i}', sys.executable, '-u', '-m',
           'cifar10.multi_gpu_train', *flags_of(options)], text=True,
          stdout=subprocess.PIPE if i == 0 else subprocess.DEVNULL,
          stderr=subprocess.DEVNULL,
          env={**os.environ, 'TF_CONFIG': json.dumps(
              {'cluster': cluster, 'task': task})}))

  def bytes(self):
    """Returns how many bytes each host has sent, and how many received."""
    return [[int(pathlib.Path(
        f'/sys/class/net/cifar10-p{i}/statistics/{what}').read_text())
             for i in range(self._count)] for what in ('rx_bytes', 'tx_bytes')]

  def lines_of_steps(self):
    """Yields step, milliseconds and bytes() for each line of the chief."""
    for line in self.programs[0].stdout:
      if found := re.search(r': step (\d+), .* \(([\d.]+) examples/sec', line):
        yield int(found[1]), 1e3 / float(found[2]), self.bytes()


def measure(options, count, is_cluster):
  """Returns milliseconds of each step and MB a host sends and receives in it.
  """
  with Hosts(count, RATE) as hosts:
    hosts.start(options, is_cluster)
    marks = [mark for mark in hosts.lines_of_steps() if mark[0] >= 100]
  (first, _, before), *_, (last, _, after) = marks
  megabytes = [[(b - a) / (last - first) / 1e6 for a, b in zip(*pair)]
               for pair in zip(before, after)]
  images = count if is_cluster else 1
  return [images * milliseconds for _, milliseconds, _ in marks], megabytes


def test_time_and_bytes_of_a_step(make_run, tmp_path):
  """Each host has one tower of one image. "Computes" is the time of a step if
  each host trains alone, all at once: the hosts share a processor."""
  print()
  for count in HOSTS:
    options = make_run(
        batch_size=1, max_steps=401, summary_steps=10**6, log_frequency=50,
        checkpoint_steps=10**6, reduce_dtype=REDUCE_DTYPE,
        train_dir=str(tmp_path / f'run_{count}'))
    alone, _ = measure(options, count, is_cluster=False)
    times, megabytes = measure(options, count, is_cluster=True)
    wanted = 2 * (count - 1) / count * 1068298 * (
        tf.as_dtype(REDUCE_DTYPE).size) / 1e6
    print(f'{count} hosts, {RATE}: {statistics.median(times):.1f} ms '
          f'({min(times):.1f} to {max(times):.1f}), computes '
          f'{statistics.median(alone):.1f} ms; MB sent and received: '
          + ', '.join(f'{min(own):.3f} to {max(own):.3f}' for own in megabytes)
          + f', expected {wanted:.3f}', flush=True)
    for own in megabytes:
      for value in own:
        assert wanted <= value <= 1.05 * wanted + 1e-3


@pytest.mark.parametrize('lose, find', [
    ('kill -STOP {pid}', 'kill -CONT {pid}'),
    ('ip -n cifar10-1 link set cifar10-e1 down',
     'ip -n cifar10-1 link set cifar10-e1 up')])
def test_a_worker_that_does_not_answer(make_small_run, tmp_path, lose, find):
  """The training waits for it, and ends as without the loss."""
  options = make_small_run(batch_size=2, max_steps=800, log_frequency=100,
                           checkpoint_steps=100)
  ends = []
  for is_lost in False, True:
    options = dataclasses.replace(options, train_dir=str(
        tmp_path / str(is_lost)))
    with Hosts(3, '1gbit') as hosts:
      hosts.start(options)
      chief, worker = hosts.programs[:2]
      if is_lost:
        read_lines_until(chief, ': step 300,')
        sh(lose.format(pid=worker.pid))
        line = read_lines_until(chief, 'lost worker 0 (10.99.0.2:2222)')
        assert 'starting again' in line
        read_lines_until(chief, 'waiting for worker 0 (10.99.0.2:2222)')
        sh(find.format(pid=worker.pid))
        read_lines_until(chief, 'Resuming at step ')
      chief.communicate(timeout=120)
      for program in hosts.programs:
        assert program.wait(60) == 0
    ends.append(read_checkpoint(f'{options.train_dir}/model.ckpt-800'))
  for name, value in ends[0].items():
    assert (value == ends[1][name]).all(), name
