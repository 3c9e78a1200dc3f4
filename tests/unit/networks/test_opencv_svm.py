"""Support vector machines in OpenCV's YAML: 577 finite numbers of OptiC's HOG, or nothing."""

import numpy as np
import pytest

from fastseg.errors import NetworkError
from fastseg.networks.sct import read_opencv_svm
from tests.unit.networks.stand_ins import svm_values, yaml_file


def test_opencvs_yaml_is_read_number_by_number():
    np.testing.assert_array_equal(read_opencv_svm(yaml_file(svm_values())), svm_values())


VALUES = [str(value) for value in svm_values()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (yaml_file(VALUES[:576]), "577"),
        (yaml_file([*VALUES, "1."]), "577"),
        (yaml_file([*VALUES[:576], ".Nan"]), "no finite number"),
        (yaml_file([*VALUES[:576], "-.Inf"]), "no finite number"),
        (yaml_file([*VALUES[:576], "1e39"]), "577 finite"),
        (yaml_file([*VALUES[:576], "1e999"]), "577 finite"),
        (yaml_file([*VALUES[:576], "1_0"]), "no finite number"),
        (yaml_file([*VALUES[:576], "!!python/object:os.abort {}"]), "no finite number"),
        (yaml_file([*VALUES[:576], "nan"]), "no finite number"),
        (yaml_file(VALUES).replace(b"SVMDetector", b"Detector"), "no list"),
        (yaml_file(VALUES).replace(b" ]\nps0", b"\nps0"), "no list"),
        (yaml_file(VALUES) * 2, "no list"),
        (yaml_file(VALUES, winSize="[ 64, 128 ]"), "winSize"),
        (yaml_file(VALUES, signedGradient="0"), "signedGradient"),
        (yaml_file(VALUES, nbins="nine"), "nbins"),
        (b"\xff\xfe", "not a YAML"),
        (b"", "no list"),
    ],
)
def test_a_yaml_without_577_finite_numbers_of_optics_hog_is_refused(content, problem):
    with pytest.raises(NetworkError, match=problem) as caught:
        read_opencv_svm(content)
    assert "\n" not in str(caught.value)
