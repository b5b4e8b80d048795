"""The session loop of a training: resume, step, summaries, checkpoint, stop."""

import os
import signal
import time

import tensorflow.compat.v1 as tf

from cifar10.nn import replicas
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import directory
from cifar10.runs import events
from cifar10.runs import hparams
from cifar10.runs import monitor
from cifar10.runs import sessions
from cifar10.util import console
from cifar10.util import filesystem
from cifar10.util.errors import UserError


class Loop:
  """Trains a graph from the newest checkpoint, or the start, to run.max_steps.

      loop.Loop(model.train(...), run, data).train()

  Use it inside `with directory.open_train_dir(run)`, in the default graph.
  """

  def __init__(self, step, run, data, hooks=(), config=None):
    """Adds the last operations to the graph, writes run.json and graph.pbtxt,
    and makes the session go on from the newest sound checkpoint.

    Args:
      step: the `model.Step` to repeat.
      run: the `Run`.
      data: its `directories.Dataset`.
      hooks: tf.train.SessionRunHooks, called around each step.
      config: tf.ConfigProto of the session; None: `sessions.config()`.

    Raises:
      UserError: the directory has checkpoints, but none of them can be read, or
        the newest is not of this graph.
    """
    self._started = time.time()
    self._step, self._run, self._data, self._hooks = step, run, data, hooks
    self._config = config or sessions.config(run.log_device_placement)
    if checkpoints.adopt_newest(run.train_dir) is None and os.path.exists(
        description.path(run.train_dir)):
      print(f'{run.train_dir} holds no checkpoint of this run yet: starting at '
            'step 0.')
    directory.check_towers(run)
    description.save(run)
    self._summary = tf.summary.merge_all()
    self._finite = _all_finite(tf.global_variables())
    self._differing = replicas.differing()
    self._scaffold = tf.train.Scaffold(saver=tf.train.Saver(
        max_to_keep=run.keep_checkpoints, save_relative_paths=True))
    # tf.train.write_graph() fails with TensorFlow 2.20 and protobuf 7.
    filesystem.write_text(os.path.join(run.train_dir, 'graph.pbtxt'),
                          str(tf.get_default_graph().as_graph_def()))

  def train(self, target=''):
    """Trains in one session.

    Args:
      target: address of the session's server; '': this process.

    Raises:
      UserError: a loss, gradient or weight is not finite; a record file has
        changed; or there are checkpoints, but none that can be read.
      SystemExit: a signal came, see `console.received_signals()`. The step was
        completed and saved.
    """
    run = self._run
    # The session restores the checkpoint that the state file names: all
    # variables, if there is one.
    with console.received_signals() as signals:
      # explained() is inside the session, which would take an OutOfRangeError
      # for the end of the input.
      with tf.train.SingularMonitoredSession(
          self._hooks, self._scaffold, master=target, config=self._config,
          checkpoint_dir=run.train_dir) as session, \
          filesystem.explained(run.train_dir), \
          events.Writer(run.train_dir) as writer, self._data.unchanged():
        number = self._train(session, writer, signals)
      took = console.duration(time.time() - self._started)
      if signals:
        print(f'{signal.Signals(signals[0]).name}: stopped '
              f'{"and saved " if number else ""}at step {number} of '
              f'{run.max_steps}, after {took}. The same command, without '
              '--fresh, goes on from there.', flush=True)
      else:
        print(f'Step {number} of {run.max_steps} is done, after {took}. To see '
              f'it: tensorboard --logdir={run.train_dir}', flush=True)

  def _train(self, session, writer, signals):
    """Trains until the last step or a signal; returns the number of steps."""
    run, watch = self._run, monitor.Monitor(self._run)
    number = saved = int(_without_hooks(session, tf.train.get_global_step()))
    writer.graph(self._step.train_op)
    if number < run.max_steps:  # It drops the evaluation of a finished run.
      writer.start(number)
    writer.text('run', f'```json\n{description.to_json(run)}\n```', number)
    writer.summary(hparams.start(run), number)
    if number >= run.max_steps:
      print(f'{run.train_dir} is at step {number} already.')
    elif number:
      print(f'Resuming at step {number} of {run.max_steps}.', flush=True)

    while number < run.max_steps and not signals and not session.should_stop():
      # A session.run() of their own would consume a batch.
      due = number % run.summary_steps == 0
      values, summary = session.run([self._step, self._summary if due else []])
      watch.step(values)
      if due:
        writer.summary(watch.with_speed(summary, number), number)
      number = int(values.step) + 1  # Steps that are done.
      if number % run.checkpoint_steps == 0:
        self._save(session, number, watch)
        saved = number
    if number > saved:
      self._save(session, number, watch)
    if number >= run.max_steps:
      writer.summary(hparams.end(), number)
    return number

  def _save(self, session, number, watch):
    """Writes the checkpoint of `number` steps, if all is well with them."""
    run = self._run
    self._data.check()
    finite, differing = _without_hooks(session, [self._finite, self._differing])
    if not finite:
      watch.not_finite('after it, a weight is not finite')
    if any(differing.values()):
      raise UserError(
          f'step {number - 1}: after it, copies of the variables differ from '
          'those of the chief on ' + ', '.join(
              device for device, differs in differing.items() if differs))
    if not os.path.exists(description.path(run.train_dir)):
      raise UserError(f'{run.train_dir}: was moved away or deleted')

    def save(step_context):
      # explained() is inside, as the session handles some exceptions itself.
      with filesystem.explained(run.train_dir):
        # Without the graph, which is in graph.pbtxt.
        self._scaffold.saver.save(
            step_context.session, os.path.join(run.train_dir, 'model.ckpt'),
            number, write_meta_graph=False)

    session.run_step_fn(save)


def _without_hooks(session, fetches):
  """Returns the values of fetches; the session's hooks do not see the run."""
  return session.run_step_fn(
      lambda step_context: step_context.session.run(fetches))


def _all_finite(variables):
  with tf.name_scope('finite'):
    return tf.reduce_all([tf.reduce_all(tf.is_finite(v)) for v in variables
                          if v.dtype.base_dtype.is_floating])
