"""Deformed images: exact cases by hand, the law of the field against its definition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import Deform
from gpubp.errors import UsageError
from gpubp.randomness import philox
from gpubp.randomness.deform import ONE, PURPOSE, Deformation, interpolated
from tests import param

WHOLE = Deform(alpha=30, sigma=4, rotation=15, scaling=0.15, shear=0.1, rotation_by_class={1: 7.5, 7: 0})
SHAPES = [(28, 28), (29, 29), (8, 8), (17, 5), (5, 40), (1, 1), (70, 33)]


def images_of(shape, count=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, shape[0] * shape[1]), np.uint8)


def deformation(settings=WHOLE, shape=(28, 28), seed=3):
    return Deformation.of(settings, images_of(shape), shape, seed)


def straight(shape):
    """A deformation of images of this shape of which the tests use the parts by themselves."""
    return deformation(Deform(rotation=1), shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_one_without_a_field_leaves_every_bit(shape):
    images = images_of(shape)
    places = straight(shape).places((ONE, 0, 0, ONE), (0, 0))
    np.testing.assert_array_equal(interpolated(images, *places), images)


@pytest.mark.parametrize("shape", [(9, 9), (7, 13)])
def test_whole_pixels_are_moved_and_zeros_come_in_from_outside(shape):
    h, w = shape
    images = images_of(shape)
    x, y = straight(shape).places(
        (ONE, 0, 0, ONE), (256 * np.full((1, h, w), 2), 256 * np.full((1, h, w), -1))
    )
    moved, expected = interpolated(images, x, y).reshape(-1, h, w), np.zeros((6, h, w), np.uint8)
    expected[:, 1:, : w - 2] = images.reshape(-1, h, w)[:, : h - 1, 2:]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("side", [9, 8])
def test_a_quarter_turn_and_a_mirror_move_whole_pixels(side):
    images = images_of((side, side))
    square, of = images.reshape(-1, side, side), straight((side, side)).places
    turned = interpolated(images, *of((0, -ONE, ONE, 0), (0, 0))).reshape(square.shape)
    np.testing.assert_array_equal(turned, np.rot90(square, 1, (1, 2)))
    mirrored = interpolated(images, *of((-ONE, 0, 0, ONE), (0, 0))).reshape(square.shape)
    np.testing.assert_array_equal(mirrored, square[:, :, ::-1])


def test_between_four_pixels_by_hand():
    image = np.array([[10, 20, 30, 200]], np.uint8)
    x, y = np.array([[[64, 0], [256, -128]]]), np.array([[[128, 256], [255, -64]]])
    at = np.zeros((1, 2, 2), np.uint8)
    exact = (
        (10 * 192 + 20 * 64) * 128 + (30 * 192 + 200 * 64) * 128,  # a quarter right, half down
        30 * 65536,
        (20 * 1 + 200 * 255) * 256,
        10 * 128 * 192,  # half of it outside to the left, a quarter above
    )
    at[...] = np.reshape([(e + 32768) >> 16 for e in exact], (1, 2, 2))
    np.testing.assert_array_equal(interpolated(image, x, y), at.reshape(1, 4))


@pytest.mark.parametrize("far", [-(1 << 22), -257, -256, 28 * 256, 1 << 22])
def test_what_lies_outside_is_zero(far):
    images, inside = np.full((1, 784), 255, np.uint8), np.full((1, 28, 28), 14 * 256)
    assert (interpolated(images, inside, inside) == 255).all()
    for x, y in ((np.full_like(inside, far), inside), (inside, np.full_like(inside, far))):
        assert not interpolated(images, x, y).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_zeros_stay_zeros_and_an_even_image_is_even_inside(shape):
    made = deformation(shape=shape)
    assert not made.images(np.zeros_like(images_of(shape)), np.arange(6), 0).any()
    turned = deformation(Deform(scaling=0.2), (29, 29)).images(
        np.full((6, 841), 77, np.uint8), np.arange(6), 0
    )
    assert (turned.reshape(6, 29, 29)[:, 5:-5, 5:-5] == 77).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [1.5, 4])
def test_neither_the_order_nor_the_batch_changes_a_bit(shape, sigma):
    made = deformation(Deform(alpha=20, sigma=sigma, rotation=15, rotation_by_class={1: 7.5}), shape)
    images, samples = images_of(shape, 9), np.array([5, 3, 1000, 0, 7, 8, 2**31, 1, 2])
    classes = np.arange(9) % 3
    whole = made.images(images, samples, 4, classes)
    order = np.random.default_rng(1).permutation(9)
    np.testing.assert_array_equal(made.images(images[order], samples[order], 4, classes[order]), whole[order])
    apart = [made.images(images[[k]], samples[[k]], 4, classes[[k]]) for k in range(9)]
    np.testing.assert_array_equal(np.concatenate(apart), whole)
    assert len({row.tobytes() for row in made.images(images[[0] * 9], samples, 4)}) == 9 or shape == (1, 1)


def test_step_seed_and_sample_each_make_another_image():
    images, samples = images_of((28, 28), 1), np.array([7])
    made = {
        deformation(seed=seed).images(images, samples + sample, step).tobytes()
        for seed in (0, 1, 2**64 - 1)
        for step in (0, 1)
        for sample in (0, 1)
    }
    assert len(made) == 12


def test_the_stream_is_philoxs_words_of_the_counters_as_documented():
    made = deformation(seed=(5 << 32) | 9)
    words = made.stream(np.array([11, 12]), 6)
    for sample, block, lane, word in [(11, 0, 0, 0), (11, 0, 3, 1), (12, 1, 7, 2), (12, 2, 0, 3)]:
        counter = np.array([8 * block + lane, sample, 6, PURPOSE], np.uint32)
        place = 32 * block + 16 * (word // 2) + 2 * lane + word % 2
        assert words[sample - 11, place] == philox.philox(counter, (9, 5))[word]


def test_deformations_draw_other_numbers_than_dropout():
    assert PURPOSE > 1 << 16  # dropout has the numbers of the layers


def smooth_noise(sigma, alpha, shape, count):
    """Simard's field by its definition: noise at each pixel, in float64, away from any border."""
    rng, reach = np.random.default_rng(0), int(5 * sigma)
    g = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    g /= g.sum()
    h, w = shape
    noise = rng.uniform(-1, 1, (count, h + 2 * reach, w + 2 * reach))
    rows = np.stack([noise[:, k : k + h] * g[k] for k in range(len(g))]).sum(axis=0)
    return alpha * np.stack([rows[:, :, k : k + w] * g[k] for k in range(len(g))]).sum(axis=0)


def correlation(field, distance):
    """Of pixels this far apart along x, and along y."""
    across = (field[:, :, distance:] * field[:, :, :-distance]).mean()
    down = (field[:, distance:] * field[:, :-distance]).mean()
    return np.array([across, down]) / (field**2).mean()


@pytest.mark.parametrize("shape", [(28, 28), (29, 17)])
@pytest.mark.parametrize("sigma", [1, 2, 2.9, 3, 4, 6, param(10, always=False)])
def test_the_field_has_the_variance_and_the_autocorrelation_of_the_definition(sigma, shape):
    """Of 6,000 fields, whose mean square is known within 1% (a field of 28 × 28 has some 5 independent places)."""
    made = deformation(Deform(alpha=34, sigma=sigma), shape)
    x, y = made.field(made.stream(np.arange(3000), 0))
    ours = np.concatenate([x, y]) / 256
    theirs = smooth_noise(sigma, 34, shape, 1000)
    deviation = 34 * np.sqrt(1 / 3) / (2 * np.sqrt(np.pi) * sigma)
    assert theirs.std() == pytest.approx(deviation, rel=0.04)
    assert ours.std() == pytest.approx(deviation, rel=0.02)
    assert abs(ours.mean()) < 0.03 * deviation
    # The same at every pixel, those of odd and even places and at borders too; 6,000 have a deviation of 1%.
    assert np.abs(ours.std(axis=0) / deviation - 1).max() < 0.05
    assert abs((x * y).mean()) / (ours**2).mean() / 256**2 < 0.03  # of x and of y are independent
    for distance in (1, 2, 3, 5, 8):
        law = np.exp(-(distance**2) / (4 * sigma**2))
        assert np.abs(correlation(ours, distance) - law).max() < 0.03
        assert np.abs(correlation(theirs, distance) - law).max() < 0.04
    tails = [
        ((field / field.std()) ** 4).mean() for field in (ours, theirs)
    ]  # 3 of a Gaussian, which both are nearly
    assert tails[0] == pytest.approx(tails[1], abs=0.15)


@pytest.mark.parametrize("sigma", [1, 1.7, 2.9, 3, 4, 5.3, 8, 12, 16])
def test_every_sum_is_exact_in_float32(sigma):
    made = deformation(Deform(alpha=1, sigma=sigma))
    largest = np.full((1, 32 * made.blocks), 0xFFFFFFFF, np.uint32)
    assert 127 * int(made.gains.sum()) ** 2 < 1 << 24
    expected = np.rint(127 * int(made.gains.sum()) ** 2 * float(made.scale))
    for words, sign in ((largest, 1), (np.zeros_like(largest), -1)):
        x, y = made.field(words)
        np.testing.assert_array_equal(x, np.full((1, 28, 28), sign * expected))
        np.testing.assert_array_equal(y, x)
    assert (made.weights == made.weights[::-1]).all()
    assert made.weights[0] > 0


def test_angles_scales_and_shears_are_uniform_within_their_limits():
    made = deformation(Deform(rotation=30, rotation_by_class={1: 10}))
    words, classes = made.stream(np.arange(8000), 1), np.arange(8000) % 2
    xx, xy, yx, yy = (entry / ONE for entry in made.matrix(words, classes))
    np.testing.assert_allclose(xx * yy - xy * yx, 1, atol=2e-4)
    np.testing.assert_allclose(xx, yy, atol=2e-4)
    degrees = np.degrees(np.arctan2(yx, xx))
    for angles, limit in ((degrees[::2], 30), (degrees[1::2], 10)):
        assert limit * 0.99 < np.abs(angles).max() <= limit
        assert angles.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert abs(angles.mean()) < 0.04 * limit
    assert np.abs(degrees[:1000]).max() <= 30
    xx, xy, yx, yy = (entry / ONE for entry in deformation(Deform(scaling=0.2, shear=0.3)).matrix(words))
    assert not yx.any()
    for part, middle, limit in ((xx, 1, 0.2), (yy, 1, 0.2), (xy, 0, 0.3)):
        assert limit * 0.99 < np.abs(part - middle).max() <= limit + 1e-4
        assert part.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert part.mean() == pytest.approx(middle, abs=0.01)
    assert abs(np.corrcoef(xx, yy)[0, 1]) < 0.05


def test_without_classes_all_have_the_common_limit():
    made = deformation(Deform(rotation=10, rotation_by_class={0: 0, 3: 90}))
    words = made.stream(np.arange(50), 1)
    common = np.stack(made.matrix(words))
    np.testing.assert_array_equal(common, np.stack(made.matrix(words, np.full(50, 300))))
    np.testing.assert_array_equal(np.stack(made.matrix(words, np.zeros(50)))[[0, 3]], ONE)
    assert np.abs(np.stack(made.matrix(words, np.full(50, 3)))[2]).max() > ONE // 2


def test_the_largest_image_and_the_largest_settings_stay_within_32_bits():
    settings = Deform(alpha=30, rotation=180, scaling=0.5, shear=1)
    made = Deformation.of(settings, images_of((1024, 1024), 1), (1024, 1024), 0)
    corner = np.array([[0xFFFFFFFF] * 4, [0, 0, 0, 0]], np.uint32)
    for words in corner[:, None]:
        entries = [abs(int(entry[0])) for entry in made.matrix(words)]
        assert max(entries) * 2 * 1023 * 2 < 1 << 31
        x, y = made.places(made.matrix(words), (1 << 22, -(1 << 22)))
        assert max(np.abs(x).max(), np.abs(y).max()) < 1 << 31
    images = images_of((1024, 1024), 1)
    assert made.images(images, np.arange(1), 0).any()
    straight = Deformation.of(Deform(rotation=1), images, (1024, 1024), 0)
    np.testing.assert_array_equal(interpolated(images, *straight.places((ONE, 0, 0, ONE), (0, 0))), images)


def test_nothing_to_deform_is_no_deformation():
    assert deformation(Deform()) is None
    assert deformation(Deform(rotation_by_class={1: 0})) is None
    assert deformation(None) is None
    assert deformation(Deform(rotation_by_class={1: 5})) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 6}, "alpha is 0: give alpha too"),
        ({"alpha": True}, "alpha of"),
        ({"alpha": -1}, "alpha of a deformation is a number of 0 or more, not -1"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": "34"}, "alpha"),
        ({"sigma": 0.5}, "sigma of a deformation is a number of 1 to 16"),
        ({"sigma": 17}, "sigma"),
        ({"rotation": 181}, "rotation of a deformation is a number of 0 to 180"),
        ({"scaling": 0.6}, "scaling"),
        ({"shear": True}, "shear"),
        ({"rotation_by_class": {1: 200}}, "rotation for class 1"),
        ({"rotation_by_class": {-1: 5}}, "labels from 0"),
        ({"rotation_by_class": {"one": 5}}, "degrees by label"),
        ({"rotation_by_class": 5}, "degrees by label"),
        ({"rotation_by_class": [(1, 5), (1, 6)]}, "twice"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Deform(**settings)


@pytest.mark.parametrize(
    ("inputs", "shape", "message"),
    [
        (np.zeros((2, 784), np.float32), (28, 28), "only images of bytes.*give an array of uint8"),
        (np.zeros((2, 784), np.uint8), (), r"shape is not known: give inputs of shape \(N, height, width\)"),
        (np.zeros((2, 3072), np.uint8), (32, 32, 3), "32 × 32 × 3"),
        (np.zeros((2, 2000), np.uint8), (1, 2000), "1024 × 1024"),
        (np.zeros((2, 784), np.uint8), (28, 27), "28 × 27 pixels are not rows of 784"),
    ],
)
def test_what_are_no_images_is_refused_with_what_to_do(inputs, shape, message):
    with pytest.raises(UsageError, match=message):
        Deformation.of(WHOLE, inputs, shape, 0)
    with pytest.raises(UsageError, match="Deform"):
        Deformation.of({"alpha": 3}, inputs, shape, 0)


def test_images_of_one_channel_are_grey():
    images = images_of((9, 8))
    made = Deformation.of(WHOLE, images, (9, 8), 0).images(images, np.arange(6), 0)
    for shape in ((1, 9, 8), (9, 8, 1)):
        np.testing.assert_array_equal(
            Deformation.of(WHOLE, images, shape, 0).images(images, np.arange(6), 0), made
        )


def test_an_alpha_that_places_have_no_room_for_is_refused():
    with pytest.raises(UsageError, match=r"alpha is below \S+ with sigma 4, not 1e\+06"):
        deformation(Deform(alpha=1e6))


def test_settings_as_text_and_as_a_table():
    assert (
        str(WHOLE)
        == "elastic α 30 σ 4, rotation ±15° (±7.5° for class 1, ±0° for class 7), scaling ±15%, shear ±10%"
    )
    table = WHOLE.to_dict()
    assert table["rotation_by_class"] == {"1": 7.5, "7": 0.0}
    assert Deform(**table) == WHOLE
    assert Deform().to_dict() == {}
    assert Deform(**Deform(rotation=5).to_dict()) == Deform(rotation=5)


def test_numbers_of_any_kind_are_settings():
    given = {"alpha": np.int64(34), "sigma": np.float32(5), "rotation_by_class": {np.int64(1): np.float32(5)}}
    assert Deform(**given) == Deform(alpha=34, sigma=5, rotation_by_class={1: 5.0})
