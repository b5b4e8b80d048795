"""Normalizations, against numpy."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10.nn import normalization
from cifar10.util.errors import UserError
from tests import numerics

pytestmark = pytest.mark.numerical


def numpy_standardize(image):
  image = np.float64(image)
  return (image - image.mean()) / max(image.std(), image.size**-0.5)


def test_standardize_equals_tf_image():
  images = np.random.default_rng(0).uniform(0, 255, (3, 4, 5, 3))
  images[1] = 7  # A uniform image stays finite.
  images = np.float32(images)
  with tf.Graph().as_default(), tf.Session() as session:
    ours, theirs = session.run([
        normalization.NORMALIZATIONS['per_image']([4, 5, 3], None)(
            tf.constant(images)),
        tf.image.per_image_standardization(images)])
  numerics.assert_close(ours, theirs, images[0].size)
  numerics.assert_close(ours[0], numpy_standardize(images[0]), images[0].size)
  assert (ours[1] == 0).all()


def test_whitened_patches_are_decorrelated():
  """Of what was measured, mean square 1 and no correlation; the first channel
  varied most."""
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(200, 9, 9, 3))
  images = (noise + np.roll(noise, 1, 1) + noise.sum(3, keepdims=True)) * 20
  images = (images + 128).clip(0, 255).astype(np.uint8)
  with tf.Graph().as_default(), tf.Session() as session:
    whiten = normalization.NORMALIZATIONS['whiten'](
        [9, 9, 3], lambda: [images[:9], images[9:]])
    before = set(tf.get_default_graph().get_operations())
    outputs = whiten(tf.constant(images))
    # Nothing is done to the kernel for each batch.
    assert sorted(op.type for op in set(
        tf.get_default_graph().get_operations()) - before) == [
            'Cast', 'Const', 'Conv2D', 'Sub']
    session.run(tf.global_variables_initializer())
    kernel, = (v for v in tf.global_variables() if 'whitening' in v.name)
    found, kernel = session.run([outputs, kernel])
  assert found.shape == (200, 8, 8, 12)
  flat = found.reshape(-1, 12)
  np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(12), atol=0.02)
  norms = np.sqrt((kernel**2).sum((0, 1, 2)))
  assert (np.diff(norms) > 0).all()


@pytest.mark.parametrize('name', ['per_channel', 'whiten'])
def test_images_of_one_value(name):
  images = np.zeros([5, 4, 4, 3], np.uint8)
  images[..., :2] = np.arange(4)[:, np.newaxis]
  with tf.Graph().as_default(), pytest.raises(
      UserError, match='expected training images with different values in'):
    normalization.NORMALIZATIONS[name]([4, 4, 3], lambda: [images])


@pytest.mark.parametrize('name, expected', [
    ('unit', lambda x, _: x / 255),
    ('mean_image', lambda x, all_: x - all_.mean(0)),
    ('per_channel', lambda x, all_: (x - all_.mean((0, 1, 2))) / all_.std(
        (0, 1, 2)))])
def test_normalizations_equal_numpys(name, expected):
  rng = np.random.default_rng(0)
  training = rng.integers(0, 256, (2500, 4, 4, 3), np.uint8)
  images = rng.integers(0, 256, (4, 4, 4, 3), np.uint8)
  with tf.Graph().as_default(), tf.Session() as session:
    normalize = normalization.NORMALIZATIONS[name](
        [4, 4, 3], lambda: [training[:1], training[1:]])
    assert not tf.trainable_variables()
    outputs = normalize(tf.constant(images))
    session.run(tf.global_variables_initializer())
    found = session.run(outputs)
  # The statistics are rounded, and the difference and the quotient.
  numerics.assert_close(
      found, expected(np.float64(images), np.float64(training)), terms=4)
