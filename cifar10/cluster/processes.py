r"""The processes of a cluster, as the environment variable TF_CONFIG has them.

    TF_CONFIG='{"cluster": {"chief": ["h0:2222"], "worker": ["h1:2222"]},
                "task": {"type": "chief", "index": 0}}'

The chief builds the whole graph, keeps the variables, and trains; workers lend
it their devices (in-graph replication), through TensorFlow's own gRPC servers.
What a worker and the chief have to tell each other, are two resources of the
worker's process: a variable `announcement`, of what its data is, and a queue
`end`, on which the worker waits. Both outlive the chief, if it is restarted.
"""

import contextlib
import json
import os
import signal
import time
from typing import NamedTuple
import uuid

import tensorflow.compat.v1 as tf

from cifar10.util import console
from cifar10.util.errors import UserError
from cifar10.util import filesystem

_POLL_SECS = 1
_MUST_BE_EQUAL = {'count': 'number of training records',
                  'checksum': 'checksum of the training records',
                  'train': 'files', 'gpus': 'number of GPUs'}


class Lost(Exception):
  """Workers ended while they were needed."""


def say(text):
  """Prints a line of text, with the time."""
  print(f'{console.timestamp()}: {text}', flush=True)


@contextlib.contextmanager
def _session(target, *tasks):
  """Yields a session of a graph of its own, in which only `tasks` take part,
  and the resources of the last one, which is a worker."""
  filters = [task.device for task in tasks]
  with tf.Graph().as_default(), tf.device(f'{filters[-1]}/cpu:0'):
    announcement = tf.get_variable('announcement', [], tf.string,
                                   tf.zeros_initializer(), use_resource=True)
    end = tf.FIFOQueue(1, tf.string, [], shared_name='end')
    with tf.Session(target, config=tf.ConfigProto(
        device_filters=filters)) as session:
      yield session, announcement, end


def _start_server(cluster):
  """Returns a tf.train.Server for this process.

  Raises:
    UserError: its port is taken.
  """
  jobs = {'chief': [cluster.chief.address]}
  if cluster.workers:
    jobs['worker'] = [task.address for task in cluster.workers]
  port = cluster.me.address.rpartition(':')[2]
  print(f'{cluster.me}: listens on port {port} of every network interface, and '
        'does what anybody who connects says, without a password: for '
        'networks that you trust, only.', flush=True)
  # Otherwise a call to a process that has ended, such as the one that closes
  # a session, waits until that is back.
  os.environ.setdefault('GRPC_FAIL_FAST', 'true')
  try:
    return tf.train.Server(
        jobs, cluster.me.job, cluster.me.index,
        config=tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True)))
  except tf.errors.OpError as e:
    raise UserError(f'TF_CONFIG: cannot listen on {cluster.me.address}: '
                    f'{e.message}') from e


def serve(cluster, data):
  """Lends the devices of this process, a worker, until the chief says that it
  is done.

  Args:
    cluster: the `Cluster`.
    data: the `directories.Dataset` that this worker finds.

  Raises:
    UserError: what the chief says that ended it; or the port is taken.
    SystemExit: a signal came, see `console.received_signals()`.
  """
  server = _start_server(cluster)
  with console.received_signals() as signals, _session(
      server.target, cluster.me) as (session, announcement, end):
    value = tf.placeholder(tf.string, [])
    announce, size, dequeue = announcement.assign(value), end.size(), (
        end.dequeue())
    session.run(announce, {value: json.dumps(_describe(data))})
    present = None
    while not signals and not session.run(size):
      before, present = present, cluster.chief.listens()
      if present != before:
        say(f'{cluster.me}: ' + (
            f'serves {cluster.chief}' if present else
            f'{cluster.chief} is not there: waiting for it'))
      time.sleep(_POLL_SECS)
    problem = '' if signals else session.run(dequeue).decode()
  if problem:
    raise UserError(f'{cluster.chief} ended: {problem}')
  say(f'{cluster.me}: {cluster.chief} has ended, and so does this')


def _describe(data):
  """Returns what there is to know of this process, for JSON."""
  return {'process': uuid.uuid4().hex, 'train': list(data.train),
          'count': data.count(data.train), 'checksum': data.checksum,
          'gpus': len(tf.config.list_physical_devices('GPU'))}


class Host(NamedTuple):
  """What the chief needs to know of a host to put towers on it."""
  device: str  # What the names of its devices begin with.
  gpus: int  # How many it has.
  files: tuple  # Paths of its training records.


class Chief:
  """The chief's view of its cluster.

  To be used in a `with`: when that ends, for good or with an error, all workers
  that are there are told to end too. Not on SIGTERM or SIGHUP, after which
  something will start the chief again: they wait for it.
  """

  def __init__(self, cluster):
    """Starts the server.

    Args:
      cluster: the `Cluster`.

    Raises:
      UserError: its port is taken.
    """
    self._cluster = cluster
    self._announcements = {}  # What workers said, by `Task`.
    self._expected = {}  # What they have to say.
    self._server = _start_server(cluster)
    self.target = self._server.target  # For sessions.
    self.device = cluster.chief.device

  def __enter__(self):
    return self

  def __exit__(self, unused_type, error, unused_traceback):
    problem = ''
    if isinstance(error, SystemExit):
      if error.code in (128 + signal.SIGTERM, 128 + signal.SIGHUP):
        return
    elif error is not None and not isinstance(error, KeyboardInterrupt):
      problem = filesystem.reason(error) or repr(error)
    for task in self._cluster.workers:
      try:
        if not task.listens():
          raise tf.errors.UnavailableError(None, None, 'does not answer')
        with _session(self.target, self._cluster.chief, task) as (
            session, _, end):
          session.run(end.enqueue(problem),
                      options=tf.RunOptions(timeout_in_ms=5000))
      except tf.errors.OpError as e:
        say(f'{task} could not be told to end: {filesystem.reason(e)}')

  def hosts(self, data):
    """Waits until all workers are there.

    Args:
      data: the `directories.Dataset` of the chief.

    Returns:
      A `Host` for each task, the chief first.

    Raises:
      UserError: a worker has other records.
      SystemExit: a signal came, see `console.received_signals()`.
    """
    mine = _describe(data)
    self._expected = {task: {'count': mine['count'],
                             'checksum': mine['checksum']}
                      for task in self._cluster.workers}
    # Not by KeyboardInterrupt, which is lost while Python frees a session.
    with console.received_signals() as signals:
      self.wait(signals)
    # What is in the graph has to stay so.
    self._expected = dict(self._announcements)
    return [Host(task.device, found['gpus'], tuple(found['train']))
            for task, found in ((self._cluster.chief, mine),
                                *self._announcements.items())]

  def wait(self, signals=()):
    """Waits until all workers are there, and have what they should.

    Args:
      signals: list; once anything is in it, waiting ends.

    Raises:
      UserError: a worker has other records than the chief, or than it had.
    """
    missing = None
    while not signals:
      before, missing = missing, []
      for task in self._cluster.workers:
        found = self._announcements[task] = self._announcement(task)
        if not found:
          missing.append(task)
      if not missing:
        self._check()
        return
      if missing != before:
        say('waiting for ' + ', '.join(map(str, missing)))
      time.sleep(_POLL_SECS)

  def _check(self):
    for task, expected in self._expected.items():
      found = self._announcements[task]
      different = [f'{name}: {found[key]}, expected {expected[key]}'
                   for key, name in _MUST_BE_EQUAL.items()
                   if found[key] != expected.get(key, found[key])]
      if different:
        raise UserError(
            f'{task}, data in {os.path.dirname(found["train"][0])}: '
            + '; '.join(different))

  @contextlib.contextmanager
  def watching(self):
    """Raises `Lost` in place of what TensorFlow raises when workers have ended
    or have been restarted meanwhile, or did not answer."""
    try:
      yield
    except tf.errors.OpError as e:
      lost = [str(task) for task, before in self._announcements.items()
              if self._announcement(task) != before]
      if not lost and not isinstance(e, (tf.errors.AbortedError,
                                         tf.errors.UnavailableError)):
        raise
      raise Lost(', '.join(lost) or filesystem.reason(e)) from None

  def _announcement(self, task):
    """Returns what a worker says of itself, None while it does not."""
    if not task.listens():
      return None
    with contextlib.suppress(tf.errors.OpError), _session(
        self.target, self._cluster.chief, task) as (session, announcement, _):
      if session.run(announcement.is_initialized()):
        return json.loads(session.run(announcement.read_value()))
    return None
