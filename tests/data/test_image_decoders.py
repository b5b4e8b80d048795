"""What is decoded of image files, against Pillow and files made by hand:
orientation, transparency, palettes; and what is refused."""

import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest
import tensorflow.compat.v1 as tf

from cifar10.data import image_decoders
from cifar10.data import image_files
from cifar10.data import image_headers
from cifar10.data import records
from cifar10.util import filesystem
from tests.data.test_image_files import noise
from tests.data.test_image_files import read_one
from tests.data.test_image_files import save


@pytest.fixture(scope='module')
def decoder():
  """Decodes bytes in one session; returns the image and the orientation."""
  with tf.Graph().as_default(), tf.Session() as session:
    contents = tf.placeholder(tf.string, [])
    decoded = image_decoders.decode(contents)
    yield lambda content: session.run(decoded, {contents: content})


@pytest.fixture
def decode(decoder):
  """Decodes bytes to an image, as it is in the file."""
  return lambda content: decoder(content)[0]


@pytest.fixture
def refused(decoder):
  """Returns the reason why bytes are refused."""
  def reason(content):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
      decoder(content)
    return filesystem.reason(error.value)
  return reason


def encoded(image, format, **options):
  file = io.BytesIO()
  image.save(file, format, **options)
  return file.getvalue()


def on_white(content):
  """Returns what Pillow shows of a file."""
  image = Image.open(io.BytesIO(content)).convert('RGBA')
  white = Image.new('RGBA', image.size, 'white')
  return np.asarray(Image.alpha_composite(white, image).convert('RGB'))


def exif(orientation):
  data = Image.Exif()
  data[0x10f] = 'a camera of a long name'
  data[0x112] = orientation
  return data


def test_pictures_are_turned_as_exif_says(tmp_path):
  """At their own size as Pillow turns them; at others, with odd rests, as if
  they had been turned before."""
  pixels = noise(18, 29)
  blocks = noise(2, 3).repeat(16, 0).repeat(16, 1)  # Which JPEG keeps.
  paths = {(name, i): str(tmp_path / f'{i}{name}')
           for name in ('.png', '.jpg', 'up.png') for i in range(1, 9)}
  expected = {}
  for orientation in range(1, 9):
    save(paths['.png', orientation], pixels, exif=exif(orientation))
    save(paths['.jpg', orientation], blocks, exif=exif(orientation), quality=95,
         subsampling=0)
    for name in '.png', '.jpg':
      expected[name, orientation] = ImageOps.exif_transpose(
          Image.open(paths[name, orientation]))
    expected['.png', orientation].save(paths['up.png', orientation], exif=b'')
  for size in (18, 29), (29, 18), (32, 48), (48, 32), (9, 13), (10, 3):
    decoded = image_files.decode_files(list(paths.values()),
                                       records.Format(*size))
    found = {key: image.astype(int)
             for key, (_, image, _) in zip(paths, decoded)}
    for (name, orientation), turned in expected.items():
      if turned.size == size[::-1]:
        np.testing.assert_allclose(
            found[name, orientation], np.asarray(turned),
            atol=0 if name == '.png' else 4)
      if name == '.png':
        np.testing.assert_allclose(found[name, orientation],
                                   found['up.png', orientation], atol=1)


def tiff(order, entries, count=None, start=8):
  """Returns EXIF data; `entries` are of tag, type, count and value's bytes."""
  return (b'MM\0*' if order == '>' else b'II*\0') + struct.pack(
      order + 'I', start) + struct.pack(
          order + 'H', len(entries) if count is None else count) + b''.join(
              struct.pack(order + 'HHI', *entry[:3]) + entry[3]
              for entry in entries)


@pytest.mark.parametrize('data, expected', [
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')]), 6),
    (tiff('>', [(0x112, 3, 1, b'\0\6\0\0')]), 6),
    (tiff('>', [(0x112, 4, 1, b'\0\0\0\3')]), 3),
    (tiff('<', [(0x112, 4, 1, b'\3\0\0\0')]), 3),
    (tiff('<', [(0x112, 4, 1, b'\3\0\1\0')]), 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0'), (0x112, 3, 1, b'\3\0\0\0')]), 3),
    (tiff('<', [(0x111, 3, 1, b'\6\0\0\0'), (0x112, 3, 1, b'\2\0\0\0'),
                (0x113, 3, 1, b'\6\0\0\0')]), 2),
    (tiff('>', [(0x112, 3, 1, b'\6\0\0\0')]), 1),
    (tiff('<', [(0x112, 3, 2, b'\6\0\0\0')]), 1),
    (tiff('<', [(0x112, 2, 1, b'\6\0\0\0')]), 1),
    (tiff('<', [(0x112, 3, 1, b'\0\0\0\0')]), 1),
    (tiff('<', [(0x112, 3, 1, b'\x09\0\0\0')]), 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')], count=9999), 6),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')], count=0), 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')])[:-1], 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')], start=9), 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')], start=2**32 - 1), 1),
    (tiff('<', [(0x112, 3, 1, b'\6\0\0\0')], start=1000), 1),
    (b'MM' + tiff('<', [(0x112, 3, 1, b'\6\0\0\0')])[2:], 1),
    (b'XX' + tiff('<', [(0x112, 3, 1, b'\6\0\0\0')])[2:], 1),
    (b'II', 1), (b'', 1)])
def test_exif_of_any_kind(decoder, data, expected):
  """Either byte order; and what is damaged is upright."""
  picture = Image.fromarray(noise(6, 8))
  jpeg = encoded(picture, 'JPEG')
  segment = b'\xff\xe1' + struct.pack('>H', len(data) + 8) + b'Exif\0\0' + data
  for content in (
      jpeg[:2] + segment + jpeg[2:],
      # After others, one that is none, filling bytes, the tables.
      jpeg[:20] + b'\xff\xff\xe1\0\x08http\0\0\xff' + segment + jpeg[20:],
      jpeg.replace(b'\xff\xda', segment + b'\xff\xda')):
    image, orientation = decoder(content)
    assert orientation == expected
    np.testing.assert_array_equal(image, decoder(jpeg)[0])
  png = encoded(picture, 'PNG')
  chunk = png_chunk(b'eXIf', data)
  for start in 33, len(png) - 12:  # After IHDR, before IEND.
    image, orientation = decoder(png[:start] + chunk + png[start:])
    assert orientation == expected
    np.testing.assert_array_equal(image, noise(6, 8))


def png_chunk(name, data):
  return struct.pack('>I', len(data)) + name + data + struct.pack(
      '>I', zlib.crc32(name + data))


def png(height, width, color_type, depth=8, pixels=None, more=b''):
  """Returns a PNG file, of zeros or of `pixels` [height, width, channels]."""
  if pixels is None:
    # As if a long row of zeros were decoded: it is not to get that far.
    rows = b'\0' * 1000
  else:
    rows = b''.join(b'\0' + row.tobytes()
                    for row in pixels.astype('>u2' if depth == 16 else 'u1'))
  return (b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', struct.pack(
      '>IIBBBBB', width, height, depth, color_type, 0, 0, 0)) + more
      + png_chunk(b'IDAT', zlib.compress(rows)) + png_chunk(b'IEND', b''))


RGBA = Image.fromarray(np.random.default_rng(1).integers(
    0, 256, (6, 9, 4)).astype(np.uint8))
PALETTE = RGBA.convert('RGB').quantize(16)


@pytest.mark.parametrize('image, options', [
    (RGBA, {}), (RGBA.convert('LA'), {}), (PALETTE, {}),
    (PALETTE, {'transparency': 5}),
    (PALETTE, {'transparency': bytes([0, 100, 255, 3])}),
    (RGBA.convert('RGB'), {'transparency': RGBA.getpixel((1, 1))[:3]}),
    (RGBA.convert('L'), {'transparency': RGBA.convert('L').getpixel((1, 1))}),
    (RGBA.convert('1'), {'transparency': 0})])
def test_transparent_png_files_are_shown_on_white(decode, image, options):
  content = encoded(image, 'PNG', **options)
  np.testing.assert_allclose(decode(content).astype(int), on_white(content),
                             atol=1)


def test_hidden_pixels_are_not_seen(tmp_path):
  pixels = np.zeros([6, 8, 4], np.uint8)
  pixels[3:, :, 3] = 255
  image = read_one(save(tmp_path / 'a.png', pixels))
  assert (image[:3] == 255).all() and (image[3:] == 0).all()


def test_large_transparent_pictures(decode):
  """A part of the pixels at a time is put on white."""
  pixels = np.random.default_rng(0).integers(0, 256, (1200, 1000, 4))
  content = encoded(Image.fromarray(pixels.astype(np.uint8)), 'PNG',
                    compress_level=0)
  np.testing.assert_allclose(decode(content).astype(int), on_white(content),
                             atol=1)


@pytest.mark.parametrize('color_type, channels', [(0, 1), (4, 2), (2, 3),
                                                  (6, 4)])
def test_png_files_of_16_bits(decode, color_type, channels):
  pixels = np.random.default_rng(0).integers(0, 2**16, (6, 8, channels))
  color, alpha = pixels[..., :3], np.full([6, 8, 1], 2**16 - 1)
  if channels in (2, 4):
    color, alpha = pixels[..., :-1], pixels[..., -1:]
  expected = (color * (alpha / 65535) + 65535 - alpha) / 257
  np.testing.assert_allclose(
      decode(png(6, 8, color_type, 16, pixels)),
      np.broadcast_to(expected, (6, 8, 3)), atol=2)


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_jpeg_files_that_are_not_of_three_colors(decode, mode):
  pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4)).astype(
      np.uint8).repeat(8, 0).repeat(8, 1)
  content = encoded(Image.fromarray(pixels).convert(mode), 'JPEG', quality=98)
  np.testing.assert_allclose(
      decode(content), Image.open(io.BytesIO(content)).convert('RGB'), atol=3)


def gif(transparency=None, own_palette=False, interlace=0, size=None,
        place=None, **options):
  """Returns a GIF file of PALETTE, and changes what Pillow would not write."""
  if transparency is not None:
    options['transparency'] = transparency
  content = encoded(PALETTE, 'GIF', interlace=interlace, **options)
  if size:
    content = content[:6] + struct.pack('<HH', *size) + content[10:]
  start = content.index(b',\0\0\0\0')
  if place:
    content = (content[:start + 1] + struct.pack('<HH', *place)
               + content[start + 5:])
  if own_palette:
    flags = content[10]
    end = 13 + 3 * 2**(flags % 8 + 1)
    content = (content[:10] + bytes([flags & 0x7f]) + content[11:13]
               + content[end:start + 9]
               + bytes([content[start + 9] | 0x80 | flags % 8])
               + content[13:end] + content[start + 10:])
  return content


@pytest.mark.parametrize('transparency, own_palette, interlace, size',
                         itertools.product([None, 5], [False, True], [0, 1],
                                           [None, (3, 2)]))
def test_gif_files(decode, transparency, own_palette, interlace, size):
  """The transparent color is white. A picture can be larger than the screen."""
  content = gif(transparency, own_palette, interlace, size)
  np.testing.assert_array_equal(decode(content), on_white(content))


def test_what_a_gif_file_leaves_of_the_screen_is_white(decode):
  content = gif(5, size=(14, 11), place=(2, 4))
  np.testing.assert_array_equal(decode(content), on_white(content))
  image = decode(gif(size=(14, 11), place=(2, 4)))
  np.testing.assert_array_equal(image[4:10, 2:11], PALETTE.convert('RGB'))
  assert (image.sum((0, 1)) == (image[4:10, 2:11].sum((0, 1))
                                + 255 * (14 * 11 - 6 * 9))).all()


def test_gif_files_with_more_than_pictures(decode, refused):
  """Comments, XMP data, an end that is missing; a picture that is cut off."""
  expected = np.asarray(PALETTE.convert('RGB'))
  content = gif(comment=b'a' * 1000)
  xmp = (b'!\xff\x0bXMP DataXMP<x:xmpmeta/>\1' + bytes(range(255, -1, -1))
         + b'\0')
  start = content.index(b',\0\0\0\0')
  for content in content, content[:start] + xmp + content[start:], content[:-1]:
    np.testing.assert_array_equal(decode(content), expected)
  for end in 6, 10, 13, 100, start, start + 5, start + 30, len(content) - 2:
    assert refused(content[:end]) == 'holds no complete picture'
  assert refused(content[:13] + b'?' * 2000) == 'holds no complete picture'


def bmp(bits, rows, width, height, palette=b'', header=40, compression=0,
        masks=b'', colors=0):
  """Returns a BMP file; the masks are in the header, or after a short one."""
  start = 14 + max(header, 40 + len(masks)) + len(palette)
  return b'BM' + struct.pack('<IIIIiiHHIIiiII', start + len(rows), 0, start,
                             header, width, height, 1, bits, compression, 0, 0,
                             0, colors, 0) + masks + bytes(
                                 max(header - 40 - len(masks), 0)
                             ) + palette + rows


def bmp_rows(numbers, bits, is_top_down):
  """Packs [height, width] numbers."""
  places = (numbers[..., np.newaxis] >> np.arange(bits)[::-1]) & 1
  rows = np.packbits(places.reshape(len(numbers), -1), axis=1)
  rows = np.pad(rows, [[0, 0], [0, -rows.shape[1] % 4]])
  return rows[::1 if is_top_down else -1].tobytes()


@pytest.mark.parametrize('bits', [1, 4, 8])
@pytest.mark.parametrize('is_top_down', [False, True])
def test_bmp_files_with_palettes(decode, bits, is_top_down):
  rng = np.random.default_rng(0)
  count = 2**bits * 3 // 4 if bits > 1 else 2
  numbers = rng.integers(0, count, (5, 11))
  palette = rng.integers(0, 256, (count, 4)).astype(np.uint8)
  rows = bmp_rows(numbers, bits, is_top_down)
  content = bmp(bits, rows, 11, -5 if is_top_down else 5, palette.tobytes(),
                colors=count)
  np.testing.assert_array_equal(decode(content), palette[numbers][..., 2::-1])
  if not is_top_down:
    np.testing.assert_array_equal(decode(content), on_white(content))


RGB_MASKS = struct.pack('<III', 0xff0000, 0xff00, 0xff)


@pytest.mark.parametrize('bits, header, masks', [
    (24, 40, b''), (24, 108, b''), (32, 40, b''), (32, 40, RGB_MASKS),
    (32, 52, RGB_MASKS), (32, 124, RGB_MASKS + bytes(4)),
    (32, 56, RGB_MASKS + struct.pack('<I', 0xff000000)),
    (32, 124, RGB_MASKS + struct.pack('<I', 0xff000000))])
@pytest.mark.parametrize('is_top_down', [False, True])
def test_bmp_files_without(decode, bits, header, masks, is_top_down):
  """A fourth byte counts if the header says that it is alpha."""
  pixels = np.random.default_rng(0).integers(0, 256, (5, 7, bits // 8))
  rows = bmp_rows(pixels.reshape(5, -1), 8, is_top_down)
  content = bmp(bits, rows, 7, -5 if is_top_down else 5, b'', header,
                3 if masks else 0, masks)
  expected = pixels[..., 2::-1]
  if len(masks) == 16 and any(masks[12:]):
    alpha = pixels[..., 3:] / 255
    expected = expected * alpha + 255 * (1 - alpha)
  np.testing.assert_allclose(decode(content), expected, atol=1)


@pytest.mark.parametrize('content, reason', [
    (bmp(16, bytes(80), 7, 5), 'is a BMP file of a kind that cannot be read: a '
     'header of 40 bytes, 16 bits a pixel, compression 0'),
    (bmp(8, bytes(80), 7, 5, compression=1), 'compression 1'),
    (bmp(32, bytes(140), 7, 5, compression=3, masks=RGB_MASKS[::-1]),
     'compression 3'),
    (bmp(24, bytes(120), 7, 5, header=64), 'a header of 64 bytes'),
    (b'BM' + struct.pack('<IIIIHHHH', 0, 0, 26, 12, 7, 5, 1, 24) + bytes(120),
     'a header of 12 bytes'),
    (bmp(24, bytes(119), 7, 5), 'ends before its last pixel'),
    (bmp(24, bytes(119), 7, 0), 'is 7 x 0 pixels'),
    (bmp(24, bytes(119), 2**31 - 1, -2**31), 'is 2147483647 x 2147483648 pix'),
    (bmp(24, b'', 7, 5)[:20], 'a header of 40 bytes'), (b'BM', 'BMP file'),
    (b'\x89PNG\r\n\x1a\n', 'does not begin with the header of a PNG file'),
    (png(6, 8, 2).replace(b'IHDR', b'abCD'), 'does not begin with the header'),
    (b'\xff\xd8\xff', 'Invalid JPEG'), (b'GIF8', 'holds no complete picture'),
    (b'', 'Input is empty'), (b'GIF?', 'Unknown image file format')])
def test_what_cannot_be_right_is_refused(refused, content, reason):
  assert reason in refused(content)


def jpeg(height, width, more=b''):
  """Returns a JPEG file that says it is of another size, which was 8x8."""
  content = encoded(Image.new('L', (8, 8)), 'JPEG', progressive=bool(more))
  start = content.index(b'\xff\xc2' if more else b'\xff\xc0') + 5
  content = content[:start] + struct.pack('>HH', height, width) + (
      content[start + 4:])
  return content[:-2] + more + content[-2:]


TOO_LARGE = {
    'png': png(20000, 20000, 0, 1), 'rgba.png': png(10000, 10001, 6),
    'huge.png': png(2**32 - 1, 2**32 - 1, 2),
    'gif': gif(size=(20000, 20000)), 'bmp': bmp(1, b'', 20000, -20000),
    'jpg': jpeg(20000, 20000),
    'far.gif': gif(place=(65000, 65000))}


@pytest.mark.parametrize('name', TOO_LARGE)
def test_large_pictures_are_refused(refused, name):
  assert image_headers.MAX_PIXELS == 100_000_000
  width, height = {
      'rgba.png': (10001, 10000), 'huge.png': (2**32 - 1, 2**32 - 1),
      'far.gif': (65009, 65006)}.get(name, (20000, 20000))
  assert refused(TOO_LARGE[name]) == (
      f'is {width} x {height} pixels, expected 1 to 100,000,000 in all')


def test_pictures_up_to_the_limit(decoder):
  """A row of a hundred million pixels is none too many."""
  content = bmp(1, bytes(12_500_000), 100_000_000, 1, b'\1\2\3\4' * 2)
  assert decoder(content)[0].shape == (1, 100_000_000, 3)


def test_gif_files_are_not_decoded_further(decode):
  """What follows the first picture is not even looked at."""
  content = gif()
  start = content.index(b',\0\0\0\0')
  vast = content[start:start + 5] + b'\xff' * 4 + content[start + 9:-1]
  np.testing.assert_array_equal(decode(content[:-1] + vast * 1000 + b';'),
                                PALETTE.convert('RGB'))


def test_scans_are_counted(decode, refused):
  """Each can go over all pixels, whatever it holds."""
  content = jpeg(8, 8, b' ')
  scan = content[content.rindex(b'\xff\xda'):-3]
  image = decode(jpeg(8, 8, b''))
  scans = content.count(b'\xff\xda')
  many = jpeg(8, 8, scan * (32 - scans))
  np.testing.assert_allclose(decode(many), image, atol=2)
  assert refused(jpeg(8, 8, scan * (33 - scans))) == (
      'has 33 scans, expected up to 32')
  # A restart marker in front has no length to be passed over, and what follows
  # the end, such as another picture, does not count.
  hidden = b'\xff\xd0' + struct.pack('>H', len(many)) + b''
  assert 'has 33 scans' in refused(
      many[:2] + hidden + jpeg(8, 8, scan * (33 - scans))[2:])
  np.testing.assert_allclose(decode(many * 2), image, atol=2)


MEASURE = """
import resource, sys
from cifar10.data import image_files, records

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def read(*paths):
  return [reason for _, _, reason in image_files.decode_files(
      paths, records.CIFAR10)]

small, *large = sys.argv[1:]
# TensorFlow would read the second.
assert read(small, f'file://{small}', 'gone') == [
    None, *['there is no such file'] * 2]
before = peak()
reasons = read(*large)
print(peak() - before, *reasons, sep='\\n')
"""


def test_memory_of_large_pictures(run_program, tmp_path):
  """They would take 0.4 to 1.2 GB each."""
  sizes = {'bit.png': 'is 20000 x 20000', 'frames.gif': 'None',
           'screen.gif': 'is 20000 x 20000'}
  frame = encoded(Image.new('P', (3000, 3000)), 'GIF')
  start = frame.index(b',\0\0\0\0')
  (tmp_path / 'frames.gif').write_bytes(
      frame[:start] + frame[start:-1] * 50 + b';')
  (tmp_path / 'screen.gif').write_bytes(gif(size=(20000, 20000)))
  Image.new('1', (20000, 20000)).save(tmp_path / 'bit.png')
  small = save(tmp_path / 'small.png', noise(6, 8))
  code, out, err = run_program(
      MEASURE, small, *(str(tmp_path / name) for name in sizes))
  assert code == 0, err
  found = out.splitlines()
  for reason, expected in zip(found[1:], sizes.values(), strict=True):
    assert expected in reason
  assert int(found[0]) < 150


def test_damaged_files_give_a_picture_or_a_reason(decoder):
  """Changed at random, most of all in their first bytes."""
  rng = np.random.default_rng(0)
  contents = [
      encoded(RGBA.convert('RGB'), 'JPEG', exif=exif(6)),
      encoded(RGBA.convert('CMYK'), 'JPEG'), encoded(RGBA, 'PNG', exif=exif(3)),
      encoded(PALETTE, 'PNG', transparency=5), gif(5), gif(own_palette=True),
      encoded(PALETTE, 'BMP'), encoded(RGBA, 'BMP')]
  shown = 0
  for _ in range(500):
    content = bytearray(contents[rng.integers(len(contents))])
    for _ in range(rng.integers(1, 4)):
      position = int(rng.integers(rng.choice([100, len(content)])))
      change = rng.bytes(rng.integers(5))
      content[position:position + int(rng.integers(5))] = change
    try:
      image, orientation = decoder(bytes(content))
      assert image.size <= 3e8 and 1 <= orientation <= 8
      shown += 1
    except tf.errors.InvalidArgumentError as e:
      assert filesystem.reason(e)
  assert 50 < shown < 450
