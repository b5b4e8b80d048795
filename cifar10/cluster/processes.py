r"""Runs the processes of a cluster, which is described by TF_CONFIG.

    TF_CONFIG='{"cluster": {"chief": ["h0:2222"], "worker": ["h1:2222"]},
                "task": {"type": "chief", "index": 0}}'

The chief builds the whole graph, holds the variables, and trains. Workers lend
it their devices (in-graph replication) through TensorFlow's gRPC servers. A
worker and the chief communicate through two resources of the worker's process:
a variable `announcement`, which describes the worker's data, and a queue `end`,
on which the worker waits. Both are kept when the chief is restarted, which it
is when it has lost a worker.
"""

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from typing import Any, NamedTuple, Optional
import uuid

import tensorflow.compat.v1 as tf

from cifar10.util import console
from cifar10.util import filesystem
from cifar10.util import gpus
from cifar10.util.errors import UserError

_POLL_SECS = 1
# A worker that does not answer this number of times in a row, for two seconds
# each, has stopped, or the network has. It is noticed within 25 seconds.
_MAX_SILENT_POLLS = 8


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
  jobs = {'chief': [cluster.chief.address],
          'worker': [task.address for task in cluster.workers]}
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
    session.run(announcement.assign(json.dumps(_announcement_of(data))))
    size, dequeue = end.size(), end.dequeue()
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
          'records': f'{len(data.train):,} training records with the '
                     f'checksum {data.checksum}',
          'is_mapped': data.train.is_mapped,
          'gpus': gpus.count()}


class Host(NamedTuple):
  """A host on which towers can be placed."""
  device: str  # Prefix of the names of its devices; '': there is one host.
  gpus: Optional[int]  # Number of its GPUs; None: as many as there are here.
  files: Any  # Its training records, `RecordFiles`.


class Chief:
  """The chief's view of its cluster, a context manager.

  At the end of the `with` block, also after an error, the chief ends all
  reachable workers. After SIGTERM or SIGHUP, it does not: the workers wait for
  the chief to be restarted.
  """

  def __init__(self, cluster, restart):
    """Starts the server.

    Args:
      cluster: the `Cluster`.
      restart: function that starts this program once more, in place of this
        process.

    Raises:
      UserError: the port is in use.
    """
    self._cluster, self._restart = cluster, restart
    self._announcements = {}  # What workers announced, by `Task`.
    self._server = _start_server(cluster)

  def __enter__(self):
    return self

  def __exit__(self, unused_type, error, unused_traceback):
    if isinstance(error, SystemExit) and error.code in (
        128 + signal.SIGTERM, 128 + signal.SIGHUP):
      return
    problem = ''
    if isinstance(error, Exception):
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
    # A KeyboardInterrupt would be lost while Python frees a session.
    with console.received_signals() as signals:
      missing = None
      while missing != [] and not signals:
        before = missing
        self._announcements = {task: self._announcement(task)
                               for task in self._cluster.workers}
        missing = [str(task) for task, found in self._announcements.items()
                   if not found]
        if missing and missing != before:
          say('waiting for ' + ', '.join(missing))
        if missing:
          time.sleep(_POLL_SECS)
    for task, found in self._announcements.items():
      if found['records'] != mine['records']:
        raise UserError(
            f'{task}, data in {os.path.dirname(found["train"][0])}: '
            f'{found["records"]}, expected {mine["records"]}')
    return [Host(task.device, found['gpus'], dataclasses.replace(
        data.train, paths=tuple(found['train']), is_mapped=found['is_mapped']))
            for task, found in ((self._cluster.chief, mine),
                                *self._announcements.items())]

  def train(self, train):
    """Calls train(target), with the address of the session's server.

    If a worker is lost, starts this program again: TensorFlow's calls to a
    worker that has stopped, or whose network has, do not end. After a signal,
    which a scheduler may have sent to the workers too, it does not.
    """
    done = threading.Event()
    for task in self._cluster.workers:
      threading.Thread(target=self._poll, args=(task, done), daemon=True
                       ).start()
    with console.received_signals() as signals:
      try:
        train(self._server.target)
      except (UserError, tf.errors.OpError) as e:
        # filesystem.explained() converts TensorFlow errors to UserError.
        error = e.__cause__ if isinstance(e, UserError) else e
        if not isinstance(error, tf.errors.OpError):
          raise
        lost = [task for task, before in self._announcements.items()
                if self._announcement(task) != before]
        if not lost and not isinstance(error, (tf.errors.AbortedError,
                                               tf.errors.UnavailableError)):
          raise
        if not signals:
          self._start_again(lost or [filesystem.reason(error)])
      finally:
        done.set()

  def _poll(self, task, done):
    """Starts this program again if a worker does not answer any more."""
    silent = 0
    while not done.wait(_POLL_SECS):
      silent = 0 if task.listens() else silent + 1
      if silent >= _MAX_SILENT_POLLS and not done.is_set():
        self._start_again([task])

  def _start_again(self, lost):
    say(f"lost {', '.join(map(str, lost))}: starting again")
    self._restart()

  def _announcement(self, task):
    """Returns a worker's announcement; None if there is none, or none yet."""
    with contextlib.suppress(tf.errors.OpError):
      if task.listens():
        with _session(self._server.target, self._cluster.chief, task) as (
            session, announcement, _):
          return json.loads(session.run(announcement.read_value()))
    return None
