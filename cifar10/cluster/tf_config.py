"""Parses the environment variable TF_CONFIG, which describes a cluster."""

import dataclasses
import json
import os
import re
import socket
from typing import NamedTuple

from cifar10.util.errors import UserError

_EXPECTED = ('expected {"cluster": {"chief": ["HOST:PORT"], "worker": '
             '["HOST:PORT", ...]}, "task": {"type": "chief" or "worker", '
             '"index": 0}}')


class Task(NamedTuple):
  """A process of a cluster."""
  job: str  # 'chief' or 'worker'.
  index: int
  address: str  # 'host:port'.

  def __str__(self):
    name = 'the chief' if self.job == 'chief' else f'worker {self.index}'
    return f'{name} ({self.address})'

  @property
  def device(self):
    """Prefix of the names of its devices."""
    return f'/job:{self.job}/task:{self.index}'

  def listens(self):
    """Returns whether a server answers at its address.

    HTTP/2 servers, which include gRPC servers, send data when a client
    connects. The server of a stopped process sends nothing, and calls to it
    would wait forever.
    """
    host, _, port = self.address.rpartition(':')
    try:
      with socket.create_connection((host.strip('[]'), int(port)), 2) as s:
        return bool(s.recv(1))
    except (OSError, UnicodeError):  # UnicodeError: invalid host name.
      return False


@dataclasses.dataclass(frozen=True)
class Cluster:
  """All tasks of a cluster.

  Attributes:
    chief: the `Task` of the chief, which trains.
    workers: tuple of the `Task`s of the workers.
    me: the `Task` of this process.
  """
  chief: Task
  workers: tuple
  me: Task


def from_environment():
  """Returns the `Cluster` that TF_CONFIG describes; None if it has no cluster.

  Raises:
    UserError: TF_CONFIG is invalid.
  """
  text = os.environ.get('TF_CONFIG', '').strip()
  if not text:
    return None

  def check(condition, problem):
    if not condition:
      raise UserError(f'TF_CONFIG: {problem}; {_EXPECTED}')

  try:
    config = json.loads(text)
  except (ValueError, RecursionError) as e:
    raise UserError(f'TF_CONFIG: is no JSON: {e}; {_EXPECTED}') from e
  check(isinstance(config, dict), f'is {json.dumps(config)}')
  if not config.get('cluster'):
    return None
  jobs, task = config['cluster'], config.get('task')
  check(isinstance(jobs, dict), f'its cluster is {json.dumps(jobs)}')
  check(isinstance(task, dict) and 'type' in task, 'has no task with a type')
  if task['type'] == 'evaluator':
    raise UserError('TF_CONFIG: the task is an evaluator: for that, run python '
                    '-m cifar10.eval --checkpoint_dir=TRAIN_DIR')
  for job, addresses in jobs.items():
    check(job in ('chief', 'worker', 'evaluator'), f'its cluster has the job '
          f'{job!r}. There are a chief, which keeps the variables, and workers')
    check(isinstance(addresses, list) and all(
        isinstance(address, str) and re.fullmatch(r'[^\s/]+:\d+', address)
        and 0 < int(address.rpartition(':')[2]) < 2**16
        for address in addresses), f'{job} is {json.dumps(addresses)}')
  check(len(jobs.get('chief', [])) == 1, 'its cluster has no chief, or several')
  tasks = [Task(job, index, address) for job in ('chief', 'worker')
           for index, address in enumerate(jobs.get(job, []))]
  addresses = [task.address for task in tasks]
  check(len(addresses) == len(set(addresses)),
        'an address is there twice: ' + ', '.join(addresses))
  job, index = task['type'], task.get('index', 0)
  me = [task for task in tasks
        if task[:2] == (job, index) and index is not True]
  check(me, f'the task is {job} {json.dumps(index)}, which its cluster does '
        'not have')
  return Cluster(tasks[0], tuple(tasks[1:]), *me)
