"""Pictures of filters."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from cifar10.nn import summaries


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
