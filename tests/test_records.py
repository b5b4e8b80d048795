import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from cifar10 import records
from cifar10 import UserError

# 2 pixels high, 3 wide, 2 channels: 13 bytes a record.
TINY = records.Format(height=2, width=3, depth=2, class_names=('a', 'b', 'c'))
RECORDS = bytes([1, *range(10, 22),
                 2, *range(100, 112)])


def test_parse_turns_planes_into_pixels():
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.reshape(tf.decode_raw(RECORDS, tf.uint8), [-1, 13])
    images, labels = session.run(records.parse(data, TINY))
  assert images.dtype == np.uint8
  assert labels.dtype == np.int32
  assert labels.tolist() == [1, 2]
  assert images[0].tolist() == [[[10, 16], [11, 17], [12, 18]],
                                [[13, 19], [14, 20], [15, 21]]]
  assert images[1, 1, 2].tolist() == [105, 111]


def test_write_makes_the_bytes_that_parse_reads(tmp_path):
  images = np.uint8([[[[10, 16], [11, 17], [12, 18]],
                      [[13, 19], [14, 20], [15, 21]]]])
  records.write(tmp_path / 'a.bin', images, [1])
  assert (tmp_path / 'a.bin').read_bytes() == RECORDS[:13]


def test_write_refuses_labels_that_do_not_fit_a_byte(tmp_path):
  with pytest.raises(ValueError):
    records.write(tmp_path / 'a.bin', np.zeros([1, 2, 3, 2]), [256])


def test_read_and_count(tmp_path):
  path = tmp_path / 'a.bin'
  path.write_bytes(RECORDS)
  assert records.count(path, TINY) == 2
  assert records.read(path, TINY).tobytes() == RECORDS


@pytest.mark.parametrize('content, message', [
    (b'', 'size is 0 bytes, expected a positive multiple of .* 13'),
    (RECORDS[:-1], 'size is 25 bytes, expected a positive multiple of .* 13'),
    (RECORDS + bytes([3]) + bytes(12) + bytes([255]) + bytes(12),
     r'record 2 \(byte 26\) has label 3, expected 0 to 2; 2 such records'),
])
def test_read_says_what_is_wrong(tmp_path, content, message):
  path = tmp_path / 'bad.bin'
  path.write_bytes(content)
  with pytest.raises(UserError, match=f'bad.bin: {message}'):
    records.read(path, TINY)


def test_missing_file(tmp_path):
  with pytest.raises(UserError, match='gone.bin: .*No such file'):
    records.read(tmp_path / 'gone.bin')


def test_cifar10_record_size():
  assert records.CIFAR10.record_bytes == 3073
