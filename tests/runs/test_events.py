"""Event files, read as TensorBoard does."""

import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10.runs import events
from tests.conftest import summaries_of


def events_in(directory):
  paths = sorted(path for path in tf.io.gfile.glob(f'{directory}/events*'))
  return [event for path in paths for event in tf.train.summary_iterator(path)]


def test_one_graph_and_a_description(make_run):
  """Also of a run that went on."""
  for steps in 2, 4:
    run = multi_gpu_train.train(make_run(max_steps=steps, summary_steps=1),
                                ['/cpu:0'] * 2)
  graph, = [tf.GraphDef.FromString(event.graph_def)
            for event in events_in(run.train_dir) if event.graph_def]
  names = {node.name for node in graph.node}
  inputs = {name.lstrip('^').partition(':')[0]
            for node in graph.node for name in node.input}
  assert inputs <= names
  # What there is to see: no more than what a step does.
  assert {name.partition('/')[0] for name in names} == {
      'variables', 'input', 'split', 'tower_0', 'tower_1',
      'average_gradients', 'learning_rate', 'losses', 'gradients', 'update',
      'averages'}
  assert {'variables/conv1/weights', 'variables/global_step',
          'variables/conv1/weights/ExponentialMovingAverage',
          'tower_1/conv1/Conv2D'} <= names
  text = summaries_of(run.train_dir)['run', 2]
  assert text.metadata.plugin_data.plugin_name == 'text'
  assert b'"network": "convnet"' in text.tensor.string_val[0]
  speeds = {step: value.simple_value for (tag, step), value in summaries_of(
      run.train_dir).items() if tag == 'training/examples_per_sec'}
  assert speeds.keys() == {1, 3} and min(speeds.values()) > 1


def test_events_are_in_the_file_at_once(tmp_path):
  """So that no checkpoint is ahead of them when the process is killed."""
  with events.Writer(str(tmp_path)) as writer:
    for step in range(3):
      summary = tf.Summary(value=[tf.Summary.Value(tag='a', simple_value=step)])
      writer.summary(summary, step)
      assert ('a', step) in summaries_of(tmp_path)
