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
import time
import uuid

import tensorflow.compat.v1 as tf

from cifar10 import cli
from cifar10 import filesystem
from cifar10 import UserError

_POLL_SECS = 1


class Lost(Exception):
  """Workers ended while they were needed."""


def _say(text):
  print(f'{cli.timestamp()}: {text}', flush=True)


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
    UserError: its address is taken, or not of this host.
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
    UserError: what the chief says that ended it.
  """
  server = _start_server(cluster)
  with _session(server.target, cluster.me) as (session, announcement, end):
    value = tf.placeholder(tf.string, [])
    announce, size, dequeue = announcement.assign(value), end.size(), (
        end.dequeue())
    session.run(announce, {value: json.dumps(
        {'process': uuid.uuid4().hex, **_records(data)})})
    present = None
    while not session.run(size):
      before, present = present, cluster.chief.listens()
      if present != before:
        _say(f'{cluster.me}: ' + (
            f'serves {cluster.chief}' if present else
            f'{cluster.chief} is not there: waiting for it'))
      time.sleep(_POLL_SECS)
    problem = session.run(dequeue).decode()
  if problem:
    raise UserError(f'{cluster.chief} ended: {problem}')
  _say(f'{cluster.me}: {cluster.chief} has ended, and so does this')


def _records(data):
  """Returns what there is to compare of training records, for JSON."""
  return {'train': list(data.train), 'count': data.count(data.train),
          'checksum': data.checksum}


def _describe(records):
  return (f'{records["count"]:,} training records in '
          f'{os.path.dirname(records["train"][0])}, checksum '
          f'{records["checksum"]}')


class Chief:
  """The chief's view of its cluster.

  To be used in a `with`: at its end, all workers that are there are told to
  end, too.
  """

  def __init__(self, cluster):
    """Starts the server.

    Args:
      cluster: the `Cluster`.
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
    problem = '' if error is None or isinstance(
        error, (KeyboardInterrupt, SystemExit)) else str(error) or repr(error)
    for task in self._cluster.workers:
      if not self._announcement(task):
        _say(f'{task} is not there, and so cannot be told that this is the end')
        continue
      with contextlib.suppress(tf.errors.OpError), _session(
          self.target, self._cluster.chief, task) as (session, _, end):
        session.run(end.enqueue(problem),
                    options=tf.RunOptions(timeout_in_ms=5000))

  def wait(self, signals=()):
    """Waits until all workers are there.

    Args:
      signals: list; once anything is in it, waiting ends.
    """
    missing = None
    while not signals:
      self._announcements = {task: self._announcement(task)
                             for task in self._cluster.workers}
      before, missing = missing, [
          task for task, found in self._announcements.items() if not found]
      if not missing:
        self._check()
        return
      if missing != before:
        _say('waiting for ' + ', '.join(map(str, missing)))
      time.sleep(_POLL_SECS)

  def devices(self, num_gpus):
    """Returns a device for each tower, `num_gpus` of them on each host: its
    GPUs in turn, or its CPU. Waits for the workers."""
    self.wait()
    with tf.Session(self.target, graph=tf.Graph()) as session:
      names = [tf.DeviceSpec.from_string(device.name)
               for device in session.list_devices()]
    devices = []
    for task in (self._cluster.chief, *self._cluster.workers):
      gpus = sum((name.job, name.task, name.device_type) == (
          *task[:2], 'GPU') for name in names)
      devices += spread(num_gpus, gpus, task.device)
    return devices

  def files(self, data):
    """Returns the paths of the training records on each worker, by the device
    of its `Task`. They have to stay there.

    Args:
      data: the `directories.Dataset` of the chief.

    Raises:
      UserError: a worker has other records.
    """
    records = _records(data)
    self._expected = {task: {**records, 'train': found['train']}
                      for task, found in self._announcements.items()}
    self._check()
    return {task.device: found['train']
            for task, found in self._announcements.items()}

  def _check(self):
    for task, expected in self._expected.items():
      found = self._announcements[task]
      if any(found[key] != value for key, value in expected.items()):
        raise UserError(
            f'{task}: has {_describe(found)}; {self._cluster.chief} expects '
            + _describe(expected))

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
      raise Lost(', '.join(lost) or filesystem.reason(e)) from e

  def _announcement(self, task):
    """Returns what a worker says of itself, None while it does not."""
    if not task.listens():
      return None
    with contextlib.suppress(tf.errors.OpError), _session(
        self.target, self._cluster.chief, task) as (session, announcement, _):
      if session.run(announcement.is_initialized()):
        return json.loads(session.run(announcement.read_value()))
    return None


def spread(num_towers, gpus, task=''):
  """Returns devices for towers: GPUs in turn, or the CPU without any.

  Args:
    num_towers: how many devices.
    gpus: how many GPUs there are.
    task: what the names of the devices begin with.
  """
  return [f'{task}/gpu:{i % gpus}' if gpus else f'{task}/cpu:0'
          for i in range(num_towers)]
