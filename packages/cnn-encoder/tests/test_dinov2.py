import pytest
import torch
from cnn_encoder import load_dinov2
from safetensors.torch import save_file

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def published():
    """Random weights with the names and shapes of the published ViT-S/14 (37 x 37 patches)."""
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch14_dinov2", img_size=518, num_classes=0).state_dict()


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8, generator=generator)


def test_both_file_forms_embed_alike(published, frames, tmp_path):
    save_file(published, tmp_path / "vits14.safetensors")
    torch.save({**published, "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14_pretrain.pth")
    model = load_dinov2(tmp_path / "vits14.safetensors", image_size=84)
    z = model(frames)
    assert z.shape == (2, 384)
    assert z.dtype == torch.float32
    assert not z.requires_grad
    assert torch.equal(z, load_dinov2(tmp_path / "dinov2_vits14_pretrain.pth", image_size=84)(frames))
    assert torch.equal(z, model(frames[:, -1], torch.zeros(84, 84)))  # the newest frame, no background
    assert not torch.allclose(z[0], z[1])
    assert torch.equal(model.network.blocks[3].mlp.fc1.weight, published["blocks.3.mlp.fc1.weight"])


def test_wrong_files_are_one_clear_sentence(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        load_dinov2(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="multiple of 14"):
        load_dinov2(tmp_path / "none.pth", image_size=100)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no vit_small_patch14_dinov2 weights"):
        load_dinov2(tmp_path / "other.safetensors")
