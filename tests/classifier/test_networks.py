import numpy as np
import pytest
import torch
from torch import Tensor

from stages.classifier.model import ClassifierConfig
from stages.classifier.networks import NETWORKS, Classifier, GroupConv, build
from stages.classifier.train import focal
from stages.config import ConfigError, from_mapping
from stages.training import N_DIHEDRAL, dihedral


def settled(net: Classifier) -> Classifier:
    """A network whose normalisations differ from one, as after training."""
    rng = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=rng))
    return net.eval()


def logits_of_views(net: Classifier) -> Tensor:
    pixels, conditions = torch.randn(3, 6, 64, 64, generator=torch.Generator().manual_seed(1)), torch.zeros(3, 2)
    with torch.inference_mode():
        return torch.stack([net(dihedral(pixels, k), conditions) for k in range(N_DIHEDRAL)])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_one_logit_a_cutout(name: str) -> None:
    torch.manual_seed(0)
    logits = logits_of_views(settled(build(name, 12)))
    assert logits.shape == (N_DIHEDRAL, 3)
    assert torch.isfinite(logits).all()


def test_the_invariant_network_is_blind_to_turns_and_mirrors() -> None:
    torch.manual_seed(0)
    logits = logits_of_views(settled(build("invariant", 24)))
    assert logits.std(1).min() > 1e-4  # cutouts differ
    np.testing.assert_allclose(logits, logits[:1].expand_as(logits), atol=1e-5)


def test_other_networks_are_not_and_average_their_views() -> None:
    torch.manual_seed(0)
    net = settled(build("compact", 12))
    logits = logits_of_views(net)
    assert (logits - logits[:1]).abs().max() > 1e-4
    assert (net.n_views, build("invariant").n_views) == (4, 1)


@pytest.mark.parametrize("k", range(N_DIHEDRAL))
def test_a_group_convolution_turns_with_its_input(k: int) -> None:
    torch.manual_seed(0)
    lift, conv = GroupConv(2, 3, lifting=True).eval(), GroupConv(3, 2).eval()
    x = torch.randn(1, 2, 9, 9)
    with torch.inference_mode():
        still = conv(lift(x)).reshape(2, N_DIHEDRAL, 9, 9)
        turned = conv(lift(dihedral(x, k))).reshape(2, N_DIHEDRAL, 9, 9)
    for plane, other in zip(
        dihedral(still, k), turned, strict=True
    ):  # the same maps, turned, in another order of poses
        for pose in plane:
            assert min(float((pose - candidate).abs().max()) for candidate in other) < 1e-5


def test_focal_loss_counts_the_sure_less() -> None:
    logit, target = torch.tensor([0.0, 4.0]), torch.tensor([1.0, 1.0])
    p = torch.sigmoid(logit)
    expected = -((1 - p) ** 2 * torch.log(p)).mean()
    torch.testing.assert_close(focal(logit, target, 2.0), expected)
    torch.testing.assert_close(focal(logit, target, 0.0), -torch.log(p).mean())


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of compact"):
        from_mapping(ClassifierConfig, {"network": "vit"})
