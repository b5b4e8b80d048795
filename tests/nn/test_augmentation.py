import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10.nn import augmentation
from tests import numerics


def seed_of(*numbers):
  return augmentation.Seed(np.int64(numbers))


def evaluate(function, images, *arguments):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(function(tf.constant(images), *arguments))


def test_random_crop_is_a_window_at_every_place():
  images = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6, 1)
  images = np.repeat(images, 600, 0)
  crops = evaluate(augmentation.random_crop, images, 3, seed_of(1, 2))
  assert crops.shape == (600, 3, 3, 1)
  corners = crops[:, 0, 0, 0]
  np.testing.assert_array_equal(
      crops[..., 0], corners[:, None, None] + np.add.outer(
          6 * np.arange(3), np.arange(3)))
  places = [6 * y + x for y in range(3) for x in range(4)]
  counts = np.bincount(corners, minlength=30)
  assert (counts[places] > 20).all() and counts[places].sum() == 600


def test_cutout_is_one_grey_square_at_every_place():
  images = np.zeros((600, 7, 6, 3), np.uint8)
  out = evaluate(augmentation.cutout, images, 4, seed_of(1, 2))
  assert out.dtype == np.uint8 and set(np.unique(out)) == {0, 128}
  holes = out[..., 0] == 128
  np.testing.assert_array_equal(out, 128 * holes[..., None].repeat(3, -1))
  corners = [tuple(np.argwhere(hole)[0]) for hole in holes]
  for hole, (y, x) in zip(holes, corners):
    assert hole[y:y + 4, x:x + 4].all() and hole.sum() == 16
  assert set(corners) == {(y, x) for y in range(4) for x in range(3)}


def test_random_flip_mirrors_half_of_the_images():
  images = np.random.default_rng(0).integers(0, 9, (400, 2, 5, 3), np.uint8)
  flipped = evaluate(augmentation.random_flip, images, seed_of(1, 2))
  mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
  same = (flipped == images).all((1, 2, 3))
  assert (mirrored | same).all()
  assert 160 < mirrored.sum() < 240


def test_crop_and_flip_at_once_are_one_after_the_other():
  images = np.random.default_rng(0).integers(0, 256, (50, 9, 9, 3), np.uint8)
  crop, flip = seed_of(1, 2), seed_of(3, 4)
  with tf.Graph().as_default(), tf.Session() as session:
    once = augmentation.random_crop(tf.constant(images), 6, crop, flip)
    twice = augmentation.random_flip(
        augmentation.random_crop(tf.constant(images), 6, crop), flip)
    once, twice = session.run([once, twice])
  np.testing.assert_array_equal(once, twice)


def test_random_brightness_adds_one_number_an_image():
  images = np.random.default_rng(0).uniform(0, 255, (400, 2, 3, 3))
  delta = evaluate(augmentation.random_brightness, np.float32(images), 63.0,
                   seed_of(1, 2)) - images
  numerics.assert_close(delta, np.broadcast_to(
      delta.mean((1, 2, 3), keepdims=True), delta.shape), 2, scale=255 + 63)
  delta = delta.mean((1, 2, 3))
  assert -63 < delta.min() < -55 and 55 < delta.max() < 63
  assert abs(delta.mean()) < 8


def test_random_contrast_scales_around_the_mean_of_each_channel():
  images = np.random.default_rng(0).uniform(0, 255, (400, 4, 4, 3))
  out = evaluate(augmentation.random_contrast, np.float32(images), 0.2, 1.8,
                 seed_of(1, 2))
  means = images.mean((1, 2), keepdims=True)
  factors = np.median((out - means) / (images - means), axis=(1, 2, 3),
                      keepdims=True)
  # Of 16 pixels, the mean; the difference, the product and the sum.
  numerics.assert_close(out, means + factors * (images - means), 16 + 3,
                        scale=1.8 * 255)
  assert 0.2 < factors.min() < 0.25 and 1.75 < factors.max() < 1.8
  numerics.assert_close(out.mean((1, 2), np.float64), images.mean((1, 2)),
                        16 + 3, scale=1.8 * 255)


def test_pad_adds_black():
  images = np.arange(1, 5, dtype=np.uint8).reshape(1, 2, 2, 1)
  padded = evaluate(augmentation.pad, images, 1)[0, :, :, 0]
  assert padded.tolist() == [[0, 0, 0, 0], [0, 1, 2, 0], [0, 3, 4, 0],
                             [0, 0, 0, 0]]


def test_affine_moves_a_dot_as_geometry_says():
  """Rotation, zoom and shift of a point by the inverse of each image's map;
  half of the images are mirrored."""
  size, n = 33, 200
  y, x = np.mgrid[:size, :size].astype(np.float32)
  # The picture of coordinates: where each pixel of the result is from.
  images = np.repeat(np.stack([x, y, 0 * x], -1)[None], n, 0)
  out = evaluate(augmentation.affine, images, size, seed_of(3, 4))
  mirrored = out[:, 16, 8, 0] > out[:, 16, 24, 0]
  assert 70 < mirrored.sum() < 130
  out[mirrored] = out[mirrored][:, :, ::-1]
  middle = out[:, 8:25, 8:25]  # What is from inside the picture.
  dx = (middle[:, 8, 12] - middle[:, 8, 4])[:, :2] / 8
  dy = (middle[:, 12, 8] - middle[:, 4, 8])[:, :2] / 8
  shift = middle[:, 8, 8, :2] - 16
  zoom_x, zoom_y = np.hypot(*dx.T), np.hypot(*dy.T)
  degrees = np.degrees(np.arctan2(dx[:, 1], dx[:, 0]))
  # Of three products each coordinate, of four weighted pixels each value.
  terms = 3 + 4
  numerics.assert_close((dx * dy).sum(1), np.zeros(n), terms, scale=size)
  # Where the map of the whole differs from that of three points, it is wrong.
  grid = np.stack([x, y], -1)[8:25, 8:25] - 16
  expected = (16 + shift[:, None, None]
              + grid[None, ..., :1] * dx[:, None, None]
              + grid[None, ..., 1:] * dy[:, None, None])
  # From the middle to an edge, what a difference is wrong by grows.
  numerics.assert_close(middle[..., :2], expected, terms, scale=3 * size)
  for values, limit in ((zoom_x - 1, 0.1), (zoom_y - 1, 0.1), (degrees, 15),
                        (shift[:, 0], 3.3), (shift[:, 1], 3.3)):
    assert abs(values).max() < limit * 1.001
    assert values.min() < -0.9 * limit and values.max() > 0.9 * limit


def test_affine_takes_the_nearest_pixel_from_outside():
  images = np.full([50, 8, 8, 1], 7, np.float32)
  out = evaluate(augmentation.random_affine, images, 15.0, 0.1, 0.1,
                 seed_of(1, 2))
  numerics.assert_close(out, np.full(out.shape, 7), 4)


@pytest.mark.parametrize('name, margin, mode, flips', [
    ('pad_crop', 4, 'constant', 2), ('reflect_crop', 2, 'reflect', 1)])
def test_crops_of_padded_images_are_every_window(name, margin, mode, flips):
  images = np.random.default_rng(0).integers(1, 256, (2000, 6, 6, 1), np.uint8)
  found = evaluate(augmentation.AUGMENTATIONS[name], images, 6, seed_of(1, 2))
  padded = np.pad(images, ((0, 0), *[(margin, margin)] * 2, (0, 0)), mode)
  places = [(y, x, step) for y in range(2 * margin + 1)
            for x in range(2 * margin + 1) for step in (1, -1)[:flips]]
  is_at = np.stack([
      (padded[:, y:y + 6, x:x + 6][:, :, ::step] == found).all((1, 2, 3))
      for y, x, step in places])
  assert (is_at.sum(0) == 1).all()  # Each image is one window...
  assert (is_at.sum(1) > 0).all()  # ...and each window that of some image.


def test_reflect_crop_cutout_is_a_crop_with_a_hole():
  images = np.random.default_rng(0).integers(0, 127, (2000, 8, 8, 1), np.uint8)
  found = evaluate(augmentation.AUGMENTATIONS['reflect_crop_cutout'], images, 8,
                   seed_of(1, 2))
  hole = found == 128
  assert (hole.sum((1, 2, 3)) == 3 * 3).all()
  padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), 'reflect')
  is_at = np.stack([
      ((padded[:, y:y + 8, x:x + 8] == found) | hole).all((1, 2, 3))
      for y in range(9) for x in range(9)])
  assert (is_at.sum(0) == 1).all() and (is_at.sum(1) > 0).all()


def test_crop_and_color_is_the_tutorials():
  """Of images whose windows tell where they are from and what was done."""
  y, x = np.mgrid[:12, :12]
  image = np.stack([100 + 50 * (-1)**x, 10 * x, 10 * y], -1).astype(np.uint8)
  found = evaluate(augmentation.AUGMENTATIONS['crop_and_color'],
                   np.repeat(image[None], 2000, 0), 8, seed_of(1, 2))
  brightness = found[..., 0].mean((1, 2)) - 100
  contrast = found[..., 0].std((1, 2)) / 50
  for values, low, high in (brightness, -63, 63), (contrast, 0.2, 1.8):
    margin = (high - low) / 100
    assert low - 1e-3 < values.min() < low + margin
    assert high - margin < values.max() < high + 1e-3
  # Contrast and brightness preserve where the mean of a window is.
  places = [np.rint((found[..., channel].mean((1, 2)) - brightness) / 10 - 3.5)
            for channel in (1, 2)]
  mirrored = found[:, 0, 0, 1] > found[:, 0, 7, 1]
  assert {*zip(*places, mirrored)} == {
      (x, y, flip) for x in range(5) for y in range(5)
      for flip in (False, True)}


def test_pad_crop_and_color_pads_before():
  images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
  padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
  np.testing.assert_array_equal(*(
      evaluate(augmentation.AUGMENTATIONS[name], pictures, 8, seed_of(1, 2))
      for name, pictures in (('pad_crop_and_color', images),
                             ('crop_and_color', padded))))


def test_views_for_the_test():
  images = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 2), np.uint8)
  with tf.Graph().as_default(), tf.Session() as session:
    views = session.run(augmentation.test_views(tf.constant(images)))
  up = np.pad(images, ((0, 0), (1, 0), (1, 0), (0, 0)), 'reflect')[:, :5, :6]
  down = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), 'reflect')[:, 1:, 1:]
  expected = [view for image in (images, up, down)
              for view in (image, image[:, :, ::-1])]
  np.testing.assert_array_equal(views, np.concatenate(expected))
  assert sum(augmentation._TEST_VIEW_WEIGHTS) == 1
  assert len(augmentation._TEST_VIEW_WEIGHTS) == 6


@pytest.mark.parametrize('name', augmentation.AUGMENTATIONS)
def test_augmentations_are_functions_of_their_seed(name):
  augment = augmentation.AUGMENTATIONS[name]
  images = np.random.default_rng(0).integers(0, 256, (5, 10, 10, 3), np.uint8)
  a, b, c = (evaluate(augment, images, 8, seed_of(1, seed))
             for seed in (1, 1, 2))
  assert a.shape == (5, 8, 8, 3)
  np.testing.assert_array_equal(a, b)
  assert name == 'none' or (a != c).any()


@pytest.mark.parametrize('name', augmentation.AUGMENTATIONS)
def test_a_part_of_a_batch_is_augmented_like_the_whole(name):
  augment = augmentation.AUGMENTATIONS[name]
  images = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 3), np.uint8)
  whole = evaluate(augment, images, 8, seed_of(1, 2))
  parts = [evaluate(augment, images[first:end], 8, augmentation.Seed(
      np.int64([1, 2]), first, 6)) for first, end in ((0, 2), (2, 3), (3, 6))]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
