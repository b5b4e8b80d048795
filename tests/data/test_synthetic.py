import numpy as np

from cifar10.data import synthetic


def test_equal_seeds_give_equal_images():
  a, b, c = (synthetic.make(20, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(a[0], b[0])
  np.testing.assert_array_equal(a[1], b[1])
  assert (a[0] != c[0]).any()


def test_shapes_types_and_equal_classes():
  images, labels = synthetic.make(40, seed=1)
  assert images.shape == (40, 32, 32, 3) and images.dtype == np.uint8
  assert np.bincount(labels).tolist() == [4] * 10
  assert len(synthetic.CLASS_NAMES) == 10


def test_a_linear_classifier_on_pixels_does_not_learn_it():
  images, labels = synthetic.make(3000, seed=1)
  pixels = images.reshape(3000, -1) / 255.0 - 0.5
  targets = np.eye(10)[labels]
  # Ridge regression in closed form, with much or little regularization.
  train, test = pixels[:2000], pixels[2000:]
  for ridge in 10.0, 100.0, 1000.0:
    weights = np.linalg.solve(train.T @ train + ridge * np.eye(3072),
                              train.T @ targets[:2000])
    accuracy = ((test @ weights).argmax(1) == labels[2000:]).mean()
    assert accuracy < 0.4
