import zlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10.data import records
from cifar10.util.errors import UserError

# 2 pixels high, 3 wide, 3 channels: 19 bytes a record.
TINY = records.Format(height=2, width=3, class_names=('a', 'b', 'c'))
RECORDS = bytes([1, *range(10, 28),
                 2, *range(100, 118)])


def test_parse_turns_planes_into_pixels():
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.reshape(tf.decode_raw(RECORDS, tf.uint8), [-1, 19])
    images, labels = session.run(records.parse(data, TINY))
  assert images.dtype == np.uint8
  assert labels.dtype == np.int32
  assert labels.tolist() == [1, 2]
  assert images[0].tolist() == [
      [[10, 16, 22], [11, 17, 23], [12, 18, 24]],
      [[13, 19, 25], [14, 20, 26], [15, 21, 27]]]
  assert images[1, 1, 2].tolist() == [105, 111, 117]


def test_write_makes_the_bytes_that_parse_reads(tmp_path):
  images = np.uint8([[[[10, 16, 22], [11, 17, 23], [12, 18, 24]],
                      [[13, 19, 25], [14, 20, 26], [15, 21, 27]]]])
  records.write(tmp_path / 'a.bin', images, [1])
  assert (tmp_path / 'a.bin').read_bytes() == RECORDS[:19]


# CIFAR-100 has a byte before the label; more than 256 classes need two for it.
@pytest.mark.parametrize('start, sizes, label', [
    (b'\0\x2a', {'skipped_bytes': 1}, 42), (b'\1\2', {'label_bytes': 2}, 258),
    (b'\0\0\1\0', {'skipped_bytes': 2, 'label_bytes': 2}, 256)])
def test_other_labels(tmp_path, start, sizes, label):
  f = records.Format(height=1, width=2, depth=1, **sizes, class_names=tuple(
      map(str, range(256**sizes.get('label_bytes', 1)))))
  path = tmp_path / 'a.bin'
  records.write(path, [[[[7], [8]]]], [label], f)
  assert path.read_bytes() == start + b'\7\x08'
  records.check(path, f)
  data = np.fromfile(path, np.uint8).reshape(1, -1)
  assert records.labels(data, f).tolist() == [label]
  assert records.images(data, f).tolist() == [[[[7], [8]]]]
  with tf.Graph().as_default(), tf.Session() as session:
    images, labels = session.run(records.parse(tf.constant(data), f))
  assert images.tolist() == [[[[7], [8]]]] and labels.tolist() == [label]


def test_the_byte_of_a_wrong_label_is_told(tmp_path):
  f = records.Format(height=1, width=1, depth=1, skipped_bytes=1,
                     class_names=('a', 'b'))
  (tmp_path / 'a.bin').write_bytes(bytes([9, 1, 0, 9, 2, 0]))
  with pytest.raises(UserError, match=r'record 1 \(byte 4\) has label 2'):
    records.check(tmp_path / 'a.bin', f)


@pytest.mark.parametrize('values, message', [
    ({'height': 0}, 'height=0: expected 1 or more'),
    ({'depth': 'x'}, 'depth=x: expected an integer'),
    ({'depth': 2}, 'depth=2: expected 1 or 3'),
    ({'label_bytes': 3}, 'label_bytes=3: expected 2 or less'),
    ({'class_names': ()}, 'expected 1 to 256 class names'),
    ({'class_names': ('a', '')}, "'': expected the name of a class"),
    ({'class_names': ('a\nb',)}, 'expected the name of a class'),
    ({'class_names': (' a',)}, 'expected the name of a class'),
    ({'class_names': ('\udcff',)}, 'expected the name of a class'),
    ({'class_names': tuple('x' * 257)}, 'expected 1 to 256 class names')])
def test_bad_formats(values, message):
  with pytest.raises(UserError, match=message):
    records.Format(**values)


@pytest.mark.parametrize('label', [-1, 256])
def test_write_refuses_labels_that_do_not_fit_a_byte(tmp_path, label):
  with pytest.raises(ValueError):
    records.write(tmp_path / 'a.bin', np.zeros([1, 2, 3, 3]), [label])


@pytest.mark.parametrize('part_bytes', [1, 1000])
def test_check_and_count(tmp_path, monkeypatch, part_bytes):
  monkeypatch.setattr(records, 'PART_BYTES', part_bytes)
  path = tmp_path / 'a.bin'
  path.write_bytes(RECORDS)
  assert records.count(path, TINY) == 2
  assert records.check(path, TINY) == f'{zlib.crc32(RECORDS):08x}'


@pytest.mark.parametrize('content, message', [
    (b'', 'size is 0 bytes, expected a positive multiple of .* 19'),
    (RECORDS[:-1], 'size is 37 bytes, expected a positive multiple of .* 19'),
    (RECORDS + bytes([3]) + bytes(18) + bytes([255]) + bytes(18),
     r'record 2 \(byte 38\) has label 3, expected 0 to 2; 2 such records'),
])
@pytest.mark.parametrize('part_bytes', [1, 40, 1000])
def test_check_says_what_is_wrong(tmp_path, monkeypatch, content, message,
                                  part_bytes):
  monkeypatch.setattr(records, 'PART_BYTES', part_bytes)
  path = tmp_path / 'bad.bin'
  path.write_bytes(content)
  with pytest.raises(UserError, match=f'bad.bin: {message}'):
    records.check(path, TINY)


def test_missing_file(tmp_path):
  with pytest.raises(UserError, match='gone.bin: .*No such file'):
    records.check(tmp_path / 'gone.bin')


def test_cifar10_record_size():
  assert records.CIFAR10.record_bytes == 3073
