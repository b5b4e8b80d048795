"""Image files, against Pillow and against arithmetic by hand."""

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from cifar10.data import image_files
from cifar10.data import records

FORMAT = records.Format(height=6, width=8)


def noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(
      0, 256, (height, width, 3)).astype(np.uint8)


def save(path, pixels, **options):
  Image.fromarray(pixels).save(path, **options)
  return str(path)


def read_one(path, record_format=FORMAT):
  (index, image, reason), = image_files.decode_files([str(path)], record_format)
  assert index == 0 and reason is None, reason
  return image


@pytest.mark.parametrize('name', ['a.png', 'a.bmp'])
def test_files_of_the_size_of_records_keep_their_pixels(tmp_path, name):
  pixels = noise(6, 8)
  image = read_one(save(tmp_path / name, pixels))
  assert image.dtype == np.uint8
  np.testing.assert_array_equal(image, pixels)


def test_jpeg_and_gif(tmp_path):
  # Flat, as either format changes what is not.
  pixels = np.full((6, 8, 3), 120, np.uint8)
  for path in (save(tmp_path / 'a.jpg', pixels), save(tmp_path / 'a.gif',
                                                       pixels)):
    np.testing.assert_allclose(read_one(path), pixels, atol=2)


def test_the_first_picture_of_an_animation_counts(tmp_path):
  frames = [Image.new('RGB', (8, 6), color) for color in ('red', 'blue')]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  assert read_one(tmp_path / 'a.gif')[0, 0].tolist() == [255, 0, 0]


def test_the_middle_is_cut_out(tmp_path):
  """Twice as wide as records are: a quarter is left out on either side."""
  pixels = noise(6, 16)
  np.testing.assert_array_equal(read_one(save(tmp_path / 'wide.png', pixels)),
                                pixels[:, 4:12])
  pixels = noise(12, 8)
  np.testing.assert_array_equal(read_one(save(tmp_path / 'tall.png', pixels)),
                                pixels[3:9])


def test_pictures_are_resized_with_antialiasing(tmp_path):
  pixels = noise(60, 100)
  found = read_one(save(tmp_path / 'a.png', pixels))
  expected = Image.fromarray(pixels[:, 10:90]).resize((8, 6), Image.BILINEAR)
  np.testing.assert_allclose(found, np.asarray(expected), atol=1)
  assert abs((np.float32(found) - expected).mean()) < 0.1
  found = read_one(save(tmp_path / 'a.png', noise(3, 4)))
  expected = Image.fromarray(noise(3, 4)).resize((8, 6), Image.BILINEAR)
  np.testing.assert_allclose(found, np.asarray(expected), atol=1)
  assert read_one(save(tmp_path / 'thin.png', noise(1, 1000))).shape == (
      6, 8, 3)


@pytest.mark.parametrize('name', ['a.bmp', 'a.gif', 'a.jpg'])
def test_grey_records_of_any_file(tmp_path, name):
  path = save(tmp_path / name, np.full((6, 8, 3), 120, np.uint8))
  image = read_one(path, records.Format(6, 8, depth=1))
  np.testing.assert_allclose(image, np.full((6, 8, 1), 120), atol=2)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'LA', 'P', '1'])
def test_color_or_not(tmp_path, mode):
  grey = np.uint8([[[0] * 3, [255] * 3] * 4] * 6)
  Image.fromarray(grey).convert(mode).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read_one(tmp_path / 'a.png'), grey)
  image = read_one(tmp_path / 'a.png', records.Format(6, 8, depth=1))
  np.testing.assert_array_equal(image, grey[..., :1])


def test_order_and_what_cannot_be_read(tmp_path):
  paths, bad = [], {0: 'Input is empty', 3: 'Unknown image file',
                    4: 'no such file', 70: 'no such file',
                    150: 'holds no image'}
  for i in range(151):
    paths.append(str(tmp_path / f'{i}.png'))
    if i in (0, 3):
      (tmp_path / f'{i}.png').write_bytes(b'GIF?' * i)
    elif i not in bad:
      save(tmp_path / f'{i}.png', np.full((6, 8, 3), i, np.uint8))
  (tmp_path / 'empty').mkdir()
  paths[150] = str(tmp_path / 'empty')
  found = list(image_files.decode_files(paths, FORMAT))
  assert [index for index, _, _ in found] == list(range(151))
  for index, image, reason in found:
    if index in bad:
      assert image is None and bad[index] in reason
    else:
      assert reason is None and (image == index).all()


def test_none_of_several_batches_stops_the_others(tmp_path):
  """An animation whose pictures differ, a truncated file, an empty one."""
  good = save(tmp_path / 'a.png', noise(6, 8))
  (tmp_path / 'short.png').write_bytes((tmp_path / 'a.png').read_bytes()[:60])
  (tmp_path / 'empty.jpg').write_bytes(b'')
  paths = [str(tmp_path / 'short.png'), good, str(tmp_path / 'empty.jpg')]
  assert [image is None for _, image, _ in image_files.decode_files(
      paths, FORMAT)] == [True, False, True]
  assert list(image_files.decode_files([], FORMAT)) == []


def test_find(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('b/2.PNG', 'b/c/1.jpeg', 'b/notes.txt', 'b/._2.png', 'x.gif',
               '[1].bmp'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  assert image_files.expand(['b', 'x.gif', '[1].bmp', 'b/notes.txt']) == [
      'b/2.PNG', 'b/c/1.jpeg', 'x.gif', '[1].bmp', 'b/notes.txt']
  # A pattern of folders means what is in them; of both, the files.
  assert image_files.expand(['?', 'b*']) == ['b/2.PNG', 'b/c/1.jpeg'] * 2
  assert image_files.expand(['**/*.jpeg', '*.gif', 'none/*.png', 'gone']) == [
      'b/c/1.jpeg', 'x.gif', 'none/*.png', 'gone']
  # Links to nowhere are told of as what they are.
  (tmp_path / 'link.png').symlink_to('gone.png')
  (tmp_path / 'loop.png').symlink_to('loop.png')
  assert image_files.expand(['link.png', 'l*.png']) == [
      'link.png', 'link.png', 'loop.png']
  assert image_files.refusal('link.png') == 'there is no such file'


def test_reading_is_no_matter_of_the_graph_around_it(tmp_path):
  paths = [save(tmp_path / f'{i}.png', noise(6, 8, i)) for i in range(3)]
  with tf.Graph().as_default() as graph:
    for i, (_, image, _) in enumerate(image_files.decode_files(paths, FORMAT)):
      assert tf.get_default_graph() is graph
      np.testing.assert_array_equal(image, noise(6, 8, i))
    assert not graph.get_operations()
