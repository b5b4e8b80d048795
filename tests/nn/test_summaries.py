"""Pictures of filters, and what event files hold."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import multi_gpu_train
from cifar10.nn import summaries
from tests.conftest import summaries_of


def picture_of(weights):
  with tf.Graph().as_default(), tf.Session() as session:
    summaries.filters('f', tf.constant(weights, tf.float32))
    merged = tf.summary.merge_all()
    if merged is None:
      return None
    value, = tf.Summary.FromString(session.run(merged)).value
  assert value.tag == 'f/image'
  return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))


@pytest.mark.parametrize('depth', [1, 3])
def test_filters(depth):
  """Three in two rows of two: the darkest weight black, the lightest white."""
  weights = np.random.default_rng(0).normal(size=(5, 4, depth, 3))
  picture = picture_of(weights)
  scaled = (weights - weights.min()) / (weights.max() - weights.min()) * 255
  for index, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
    for y in range(5):
      for x in range(4):
        found = picture[27 * row + 5 * y + 3, 22 * column + 5 * x + 3]
        np.testing.assert_allclose(found, scaled[y, x, :, index].squeeze(),
                                   atol=1)
  assert picture.shape[:2] == (2 * 27, 2 * 22)
  assert (picture[[0, 26]] == 255).all() and (picture[27:, 22:] == 255).all()


@pytest.mark.parametrize('depth, shown', [(1, 1), (3, 3), (12, 3)])
def test_images_of_any_depth_have_colors(depth, shown):
  with tf.Graph().as_default(), tf.Session() as session:
    summaries.image('images', tf.random.uniform([5, 4, 6, depth]))
    values = tf.Summary.FromString(session.run(tf.summary.merge_all())).value
  assert [value.tag for value in values] == [
      f'images/image/{i}' for i in range(3)]
  assert {(value.image.height, value.image.width, value.image.colorspace)
          for value in values} == {(4, 6, shown)}


def test_units_of_dense_layers_are_pictures_too():
  weights = np.zeros([32 * 32 * 3, 10])
  weights[3 * (32 * 7 + 9) + 1, 4] = 1  # Unit 4, row 7, column 9, green.
  picture = picture_of(weights)
  assert picture.shape == (3 * 34, 4 * 34, 3)
  inside = picture[34 + 1:34 + 33, 1:33]
  assert inside[7, 9].tolist() == [0, 255, 0]
  assert inside.sum() == 255
  # Of very many a part.
  assert picture_of(np.ones([32 * 32, 500])).shape[:2] == (4 * 34, 4 * 34)
  assert picture_of(np.ones([200 * 200, 3])).shape[:2] == (202, 202)


@pytest.mark.parametrize('shape', [(3, 3, 16, 8), (50, 10), (7,)])
def test_of_other_weights_there_is_no_picture(shape):
  assert picture_of(np.ones(shape)) is None


def events(directory):
  paths = sorted(path for path in tf.io.gfile.glob(f'{directory}/events*'))
  return [event for path in paths for event in tf.train.summary_iterator(path)]


def test_one_graph_and_a_description(make_run):
  """Also of a run that went on."""
  for steps in 2, 4:
    run = multi_gpu_train.train(make_run(max_steps=steps, summary_steps=1),
                                ['/cpu:0'] * 2)
  graph, = [tf.GraphDef.FromString(event.graph_def)
            for event in events(run.train_dir) if event.graph_def]
  names = {node.name for node in graph.node}
  inputs = {name.lstrip('^').partition(':')[0]
            for node in graph.node for name in node.input}
  assert inputs <= names
  # What there is to see: no more than what a step does.
  assert {name.partition('/')[0] for name in names} == {
      'variables', 'input', 'split', 'tower_0', 'tower_1', 'average_losses',
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
  with summaries.Writer(str(tmp_path)) as writer:
    for step in range(3):
      summary = tf.Summary(value=[tf.Summary.Value(tag='a', simple_value=step)])
      writer.summary(summary, step)
      assert ('a', step) in summaries_of(tmp_path)
