r"""Runs the processes of a cluster, which is described by TF_CONFIG.

    TF_CONFIG='{"cluster": {"chief": ["h0:2222"], "worker": ["h1:2222"]},
                "task": {"type": "chief", "index": 0}}'

The chief builds the whole graph, holds the variables, and trains. Workers lend
it their devices (in-graph replication) through TensorFlow's gRPC servers. A
worker and the chief communicate through two resources of the worker's process:
a variable `announcement`, which describes the worker's data, and a queue `end`,
on which the worker waits. Both are kept when the chief is restarted.
"""

import contextlib
import dataclasses
import json
import os
import signal
import time
from typing import Any, NamedTuple
import uuid

import tensorflow.compat.v1 as tf

from cifar10.util import console
from cifar10.util import filesystem
from cifar10.util.errors import UserError

_POLL_SECS = 1
_MUST_BE_EQUAL = {'count': 'number of training records',
                  'checksum': 'checksum of the training records',
                  'train': 'files', 'gpus': 'number of GPUs'}


class Lost(Exception):
  """Raised if workers ended during the training."""


def say(text):
  """Prints a line of text with the time."""
  print(f'{console.timestamp()}: {text}', flush=True)


@contextlib.contextmanager
def _session(target, *tasks):
  """Yields a session with a new graph, and two resources of a worker.

  Only `tasks` take part in the session. The last one is the worker.
  """
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
    UserError: the port is in use.
  """
  jobs = {'chief': [cluster.chief.address]}
  if cluster.workers:
    jobs['worker'] = [task.address for task in cluster.workers]
  port = cluster.me.address.rpartition(':')[2]
  print(f'{cluster.me}: listens on port {port} of every network interface, and '
        'executes requests of all clients, without a password. Use it only in '
        'networks that you trust.', flush=True)
  # Otherwise, calls to a process that has ended wait until it is back. Closing
  # a session makes these calls.
  os.environ.setdefault('GRPC_FAIL_FAST', 'true')
  try:
    return tf.train.Server(
        jobs, cluster.me.job, cluster.me.index,
        config=tf.ConfigProto(gpu_options=tf.GPUOptions(allow_growth=True)))
  except tf.errors.OpError as e:
    raise UserError(f'TF_CONFIG: cannot listen on {cluster.me.address}: '
                    f'{e.message}') from e


def serve(cluster, data):
  """Lends the devices of this process, a worker, to the chief until it ends.

  Args:
    cluster: the `Cluster`.
    data: the `directories.Dataset` of this worker.

  Raises:
    UserError: the chief ended with an error, or the port is in use.
    SystemExit: a signal was received, see `console.received_signals()`.
  """
  server = _start_server(cluster)
  with console.received_signals() as signals, _session(
      server.target, cluster.me) as (session, announcement, end):
    value = tf.placeholder(tf.string, [])
    announce, size, dequeue = announcement.assign(value), end.size(), (
        end.dequeue())
    session.run(announce, {value: json.dumps(_announcement_of(data))})
    present = None
    while not signals and not session.run(size):
      data.check()
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


def _announcement_of(data):
  """Returns the announcement of this process, for JSON."""
  return {'process': uuid.uuid4().hex, 'train': data.train.paths,
          'count': len(data.train), 'checksum': data.checksum,
          'is_mapped': data.train.is_mapped,
          'gpus': len(tf.config.list_physical_devices('GPU'))}


class Host(NamedTuple):
  """A host on which the chief can place towers."""
  device: str  # Prefix of the names of its devices.
  gpus: int  # Number of its GPUs.
  files: Any  # Its training records, `RecordFiles`.


class Chief:
  """The chief's view of its cluster, a context manager.

  At the end of the `with` block, also after an error, the chief ends all
  reachable workers. After SIGTERM or SIGHUP, it does not: the workers wait for
  the chief to be restarted.

  Attributes:
    device: prefix of the names of the chief's devices.
    container: name of the tf.container() for the variables of a training.
  """
  container = 'training'

  def __init__(self, cluster):
    """Starts the server.

    Args:
      cluster: the `Cluster`.

    Raises:
      UserError: the port is in use.
    """
    self._cluster = cluster
    self._announcements = {}  # The last announcement of each worker, by `Task`.
    self._expected = {}  # Required values in announcements, by `Task`.
    self._server = _start_server(cluster)
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
        with _session(self._server.target, self._cluster.chief, task) as (
            session, _, end):
          session.run(end.enqueue(problem),
                      options=tf.RunOptions(timeout_in_ms=5000))
      except tf.errors.OpError as e:
        say(f'{task} could not be told to end: {filesystem.reason(e)}')

  def hosts(self, data):
    """Waits until all workers are ready.

    Args:
      data: the `directories.Dataset` of the chief.

    Returns:
      List with a `Host` for each task, the chief first.

    Raises:
      UserError: a worker has other training records than the chief.
      SystemExit: a signal was received, see `console.received_signals()`.
    """
    mine = _announcement_of(data)
    self._expected = {task: {'count': mine['count'],
                             'checksum': mine['checksum']}
                      for task in self._cluster.workers}
    # A KeyboardInterrupt would be lost while Python frees a session.
    with console.received_signals() as signals:
      self._wait(signals)
    # From now on, the graph depends on the announcements.
    self._expected = dict(self._announcements)
    return [Host(task.device, found['gpus'], dataclasses.replace(
        data.train, paths=tuple(found['train']), is_mapped=found['is_mapped']))
            for task, found in ((self._cluster.chief, mine),
                                *self._announcements.items())]

  def repeat_until_done(self, train):
    """Calls train(target) until a call returns without losing workers.

    After a loss, waits until all workers are back.

    Args:
      train: function that takes the address of the session's server.

    Raises:
      UserError: a worker has come back with other files, records or GPUs.
      SystemExit: a signal was received, see `console.received_signals()`.
    """
    with console.received_signals() as signals:
      while not signals:
        # Variables outlive sessions. If one has a value, moving averages start
        # from it, not from its initial value.
        tf.Session.reset(self._server.target, [self.container])
        try:
          with self._watching():
            train(self._server.target)
            return
        except Lost as e:
          say(f'lost {e}')
        self._wait(signals)
      print(f'{signal.Signals(signals[0]).name}: stopped while workers were '
            'away. The same command, without --fresh, goes on from the last '
            'checkpoint.', flush=True)

  def _wait(self, signals):
    """Waits until all workers are ready, and checks their announcements.

    Args:
      signals: list. Waiting ends when it is not empty.

    Raises:
      UserError: an announcement does not have the required values.
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
  def _watching(self):
    """Raises `Lost` instead of a TensorFlow error if workers have ended, have
    restarted, or did not answer."""
    try:
      yield
    except (UserError, tf.errors.OpError) as e:
      # filesystem.explained() converts TensorFlow errors to UserError.
      error = e.__cause__ if isinstance(e, UserError) else e
      if not isinstance(error, tf.errors.OpError):
        raise
      lost = [str(task) for task, before in self._announcements.items()
              if self._announcement(task) != before]
      if not lost and not isinstance(error, (tf.errors.AbortedError,
                                             tf.errors.UnavailableError)):
        raise
      raise Lost(', '.join(lost) or filesystem.reason(error)) from None

  def _announcement(self, task):
    """Returns a worker's announcement; None if it is not available."""
    if not task.listens():
      return None
    with contextlib.suppress(tf.errors.OpError), _session(
        self._server.target, self._cluster.chief, task) as (
            session, announcement, _):
      if session.run(announcement.is_initialized()):
        return json.loads(session.run(announcement.read_value()))
    return None
