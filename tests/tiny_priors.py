"""Tiny randomly initialised pipelines in the shapes of the priors people use, saved in diffusers layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDPMScheduler,
    PixArtTransformer2DModel,
    PNDMScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from magic3d_cli.guidance.builtin.latents import Latent
from magic3d_cli.guidance.builtin.paint import COLOURS, MATERIALS
from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.scene.views import CAMERA_EMBEDDING

VOCABULARY: dict[str, Any] = {
    "nouns": {
        "dragon": {"words": ["dragon"], "styles": ["<dragon-0>", "<dragon-1>"]},
        "car": {"words": ["car", "automobile"], "styles": ["<car-0>"]},
        "palm tree": {"words": ["palm tree", "palm"], "styles": ["<palm_tree-0>", "<palm_tree-1>"]},
        "bear": {"words": ["bear"], "styles": ["<bear-0>"]},
        "teddy bear": {"words": ["teddy bear", "teddy"], "styles": ["<teddy_bear-0>"]},
        "orange": {"words": ["orange"], "styles": []},
        "armchair": {"words": ["armchair", "easy chair"], "styles": ["<armchair-0>"]},
    },
    "colours": {"red": ["red", "crimson"], "blue": ["blue"], "orange": ["orange"], "gray": ["gray", "grey"]},
    "materials": {"metal": ["metal", "iron"], "wood": ["wooden", "made of wood"], "gold": ["golden"]},
}
"""Written as the built-in prior's vocabulary.json is."""


def save_sd(
    folder: Path,
    prediction: str = "epsilon",
    variant: str | None = None,
    scaling: tuple[float, float | None] = (0.5, 0.25),
) -> Path:
    """Stable Diffusion: a UNet over 4-channel latents, a KL autoencoder (factor and shift: `scaling`), CLIP."""
    torch.manual_seed(0)
    unet = tiny_unet(4)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=16,
        scaling_factor=scaling[0], shift_factor=scaling[1], force_upcast=True,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        prediction_type=prediction if prediction != "sample" else "epsilon",
    )  # fmt: skip
    parts = {"unet": unet, "vae": vae, "text_encoder": tiny_clip(40, 16), "scheduler": scheduler}
    return _save(folder, parts, tokenizer=tiny_tokenizer(["dragon", "front", "view"], 8), variant=variant)


def save_mvdream(folder: Path, layout: str = "diffusers") -> Path:
    """MVDream: Stable Diffusion whose network is told the camera, in one of three layouts.

    Args:
        layout: "diffusers", "beside" (the camera's layers in a folder of their own), "authors" (names and settings).
    """
    save_sd(folder)
    torch.manual_seed(8)
    wide: dict[str, Any] = {"block_out_channels": (32, 64), "norm_num_groups": 32, "attention_head_dim": (2, 4)}
    wide |= {"use_linear_projection": True, "sample_size": 8, "cross_attention_dim": 16, "layers_per_block": 1}
    wide |= {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    unet: Any = UNet2DConditionModel(**wide, class_embed_type="projection", projection_class_embeddings_input_dim=16)
    shutil.rmtree(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    tensors = {key: tensor.contiguous() for key, tensor in unet.state_dict().items()}
    if layout == "diffusers":
        unet.save_pretrained(folder / "unet")
    elif layout == "beside":
        network: Any = UNet2DConditionModel(**wide)
        network.load_state_dict({key: value for key, value in tensors.items() if "class_embedding" not in key})
        network.save_pretrained(folder / "unet")
        (folder / "camera_proj").mkdir()
        camera = {key.removeprefix("class_embedding."): tensors[key] for key in tensors if "class_embedding" in key}
        save_file(camera, folder / "camera_proj" / "diffusion_pytorch_model.safetensors")
        (folder / "camera_proj" / "config.json").write_text("{}")
        index["camera_proj"] = ["mvdream.camera_proj", "CameraMatrixEmbedding"]
    else:
        (folder / "unet").mkdir()
        named = {authors: tensors[own] for authors, own in AUTHORS_NAMES.items() if own in tensors}
        named |= _authors_blocks(tensors)
        assert len(named) == len(tensors)
        save_file(named, folder / "unet" / "diffusion_pytorch_model.safetensors")
        (folder / "unet" / "config.json").write_text(json.dumps(AUTHORS_SETTINGS))
        index["unet"] = ["mv_unet", "MultiViewUNetModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


AUTHORS_SETTINGS: dict[str, Any] = {
    "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "attention_resolutions": [2, 1],
    "num_res_blocks": 1, "channel_mult": [1, 2], "num_head_channels": 16, "transformer_depth": 1, "context_dim": 16,
    "camera_dim": 16,
}  # fmt: skip
"""Of `save_mvdream`, as the authors write them."""
_ENDS = ("weight", "bias")
AUTHORS_NAMES = {
    f"{authors}.{end}": f"{own}.{end}"
    for end in _ENDS
    for authors, own in {
        "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
        "camera_embed.0": "class_embedding.linear_1", "camera_embed.2": "class_embedding.linear_2",
        "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
        "input_blocks.2.0.op": "down_blocks.0.downsamplers.0.conv",
        "output_blocks.1.2.conv": "up_blocks.0.upsamplers.0.conv",
    }.items()
}  # fmt: skip


def _authors_blocks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Blocks of the tiny network under the authors' names, written out block by block."""
    blocks = {
        "input_blocks.1": ("down_blocks.0", 0), "input_blocks.3": ("down_blocks.1", 0),
        "output_blocks.0": ("up_blocks.0", 0), "output_blocks.1": ("up_blocks.0", 1),
        "output_blocks.2": ("up_blocks.1", 0), "output_blocks.3": ("up_blocks.1", 1),
    }  # fmt: skip
    places = {f"{authors}.0.": f"{own}.resnets.{i}." for authors, (own, i) in blocks.items()}
    places |= {f"{authors}.1.": f"{own}.attentions.{i}." for authors, (own, i) in blocks.items()}
    places |= {f"middle_block.{i}.": f"mid_block.{own}." for i, own in enumerate(("resnets.0", "attentions.0"))}
    places["middle_block.2."] = "mid_block.resnets.1."
    inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    inside |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    named = {}
    for authors, own in places.items():
        for key in (key for key in tensors if key.startswith(own)):
            rest = key.removeprefix(own)
            first, _, last = rest.partition(".")
            named[authors + (f"{inside[first]}.{last}" if ".resnets." in own else rest)] = tensors[key]
    return named


def save_small_encoder(folder: Path) -> Path:
    """TAESD for the latents of `save_sd`."""
    torch.manual_seed(6)
    blocks: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1)}
    blocks |= {"decoder_block_out_channels": (8, 8), "num_decoder_blocks": (1, 1)}
    network: Any = AutoencoderTiny(**blocks)
    network.save_pretrained(folder)
    return folder


def save_if(folder: Path) -> Path:
    """DeepFloyd IF, first stage: a pixel UNet with learned variance (6 channels out), T5."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=6, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), norm_num_groups=4,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=16, attention_head_dim=4,
        encoder_hid_dim=24, encoder_hid_dim_type="text_proj", addition_embed_type="text",
        addition_embed_type_num_heads=2, resnet_time_scale_shift="scale_shift", act_fn="gelu",
        class_embed_type=None,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    parts = {"unet": unet, "text_encoder": tiny_t5(24), "scheduler": scheduler}
    return _save(folder, parts, tokenizer=tiny_tokenizer(["dragon", "front", "view"], 512))


def save_pixart(folder: Path) -> Path:
    """PixArt-alpha: a transformer over latents that masks the padding of T5."""
    torch.manual_seed(2)
    transformer = PixArtTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, patch_size=2, num_layers=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, caption_channels=24, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
    )  # fmt: skip
    parts = {
        "transformer": transformer,
        "vae": vae,
        "text_encoder": tiny_t5(24),
        "scheduler": DDPMScheduler(),
    }
    return _save(folder, parts, tokenizer=tiny_tokenizer(["dragon", "front", "view"], 512))


def publish_pixart(folder: Path, sample_size: int = 128) -> Path:
    """PixArt-alpha as it was published: an older class's name, and at 1024 pixels sizes that no key asks for."""
    save_pixart(folder)
    torch.manual_seed(2)
    transformer: Any = PixArtTransformer2DModel(
        sample_size=sample_size, in_channels=4, out_channels=8, patch_size=2, num_layers=1, num_attention_heads=2,
        attention_head_dim=12, cross_attention_dim=24, caption_channels=24, norm_num_groups=4,
    )  # fmt: skip
    transformer.save_pretrained(folder / "transformer")
    config = json.loads((folder / "transformer/config.json").read_text())
    del config["use_additional_conditions"]
    config |= {"_class_name": "Transformer2DModel", "double_self_attention": False, "num_vector_embeds": None}
    (folder / "transformer/config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "transformer": ["diffusers", "Transformer2DModel"]}))
    return folder


def save_sdxl(folder: Path) -> Path:
    """SDXL: two text encoders side by side, and a summary and six sizes beside their states."""
    torch.manual_seed(8)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16 + 24, attention_head_dim=4,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8,
        use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, scaling_factor=0.13025, force_upcast=True,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    second = CLIPTextModelWithProjection(clip_config(40, 24, layers=2))
    parts = {"unet": unet, "vae": vae, "scheduler": scheduler, "text_encoder_2": second}
    parts["text_encoder"] = CLIPTextModel(clip_config(40, 16, layers=2))
    words = ["dragon", "front", "view"]
    _save(folder, parts, tokenizer=tiny_tokenizer(words, 8))
    tiny_tokenizer(words[::-1], 8).save_pretrained(folder / "tokenizer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"tokenizer_2": index["tokenizer"], "force_zeros_for_empty_prompt": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_builtin(root: Path, features: int = CAMERA_EMBEDDING) -> Path:
    """The built-in prior's layout: coarse/ and fine/ on space-to-depth pixels, told the view; a word list."""
    words = ["red", "blue", "orange", "gray", "metal", "wood", "gold"]
    for name, entry in VOCABULARY["nouns"].items():
        words += [name.replace(" ", "_"), *entry["styles"]]
    for seed, (stage, size) in enumerate((("coarse", 16), ("fine", 32))):
        torch.manual_seed(3 + seed)
        channels = 3 * (size // 8) ** 2
        unet = VolumeUNet(
            sample_size=8, in_channels=channels, out_channels=channels, projection_class_embeddings_input_dim=features,
            widths=(8, 8, 16), embedding=16,
        )  # fmt: skip
        scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
        parts = {"unet": unet, "volume": tiny_volume(), "text_encoder": tiny_clip(40, 16), "scheduler": scheduler}
        folder = _save(root / stage, parts, tokenizer=tiny_tokenizer(words, 8))
        for part in ("volume", "text_encoder", "tokenizer", "scheduler"):  # both stages' own
            (folder / part).rename(root / part) if stage == "coarse" else shutil.rmtree(folder / part)
    (root / "vocabulary.json").write_text(json.dumps(VOCABULARY))
    return root


def tiny_volume() -> CaptionVolume:
    """A volume of 8^3 voxels that remembers noise, and finds some of it in any caption."""
    volume = CaptionVolume(
        cross_attention_dim=16, latent_size=4, latent_channels=4, width=16, voxel_width=8, samples=8, embedding=16
    )
    latents = [Latent.whole(torch.randn(volume.latent_shape)) for _ in range(15)]
    tones = torch.tensor([[0.5, 0.25, 0.0, 0.0, 10.0, 10.0]]).repeat(15, 1)
    paints = torch.zeros(len(COLOURS) + len(MATERIALS), 16)
    volume.remember(latents, tones, 0.01 * torch.randn(15, 16), torch.arange(15), paints)  # short keys: like any word
    return volume


def tiny_unet(channels: int) -> UNet2DConditionModel:
    """Over latents, 4 channels out of these."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=4,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, attention_head_dim=4,
    )  # fmt: skip


def tiny_clip(vocabulary: int, width: int) -> CLIPTextModel:
    return CLIPTextModel(clip_config(vocabulary, width))


def clip_config(vocabulary: int, width: int, layers: int = 1) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=8, projection_dim=width,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def tiny_t5(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=40, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
    )


def tiny_tokenizer(words: list[str], length: int) -> PreTrainedTokenizerFast:
    words = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(words)]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length,
    )  # fmt: skip


def _save(folder: Path, parts: dict[str, Any], tokenizer: PreTrainedTokenizerFast, variant: str | None = None) -> Path:
    index = {"_class_name": "DiffusionPipeline", "tokenizer": ["transformers", type(tokenizer).__name__]}
    for name, part in parts.items():
        extra = {"variant": variant} if variant and name != "scheduler" else {}
        part.save_pretrained(folder / name, **extra)
        library = "transformers" if name.startswith("text_encoder") else "diffusers"
        index[name] = [library, type(part).__name__]
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_ip_adapter(root: Path, width: int = 16, embedding: int = 12, image_size: int = 224) -> Path:
    """An IP-Adapter for `save_sd`, and its image encoder, as their authors lay them out below `root`; the file.

    Args:
        width: of the text states that it is made for. embedding: numbers of a picture's embedding.
    """
    torch.manual_seed(9)
    sizes = [(1, 8), (3, 8), (5, 8), (7, 16)]  # down, twice up, middle: the order of the network's own list
    tensors = {f"ip_adapter.{n}.to_{letter}_ip.weight": torch.randn(out, width) for n, out in sizes for letter in "kv"}
    tensors |= {
        "image_proj.proj.weight": torch.randn(4 * width, embedding),
        "image_proj.proj.bias": torch.randn(4 * width),
    }
    tensors |= {"image_proj.norm.weight": 1 + 0.1 * torch.randn(width), "image_proj.norm.bias": torch.randn(width)}
    (root / "models").mkdir(parents=True)
    save_file(tensors, root / "models" / "ip-adapter_sd15.safetensors")
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=image_size,
            patch_size=image_size // 4, projection_dim=embedding,
        )
    )  # fmt: skip
    for parameter in encoder.parameters():  # or all pictures are nearly one
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    encoder.save_pretrained(root / "models" / "image_encoder")
    return root / "models" / "ip-adapter_sd15.safetensors"


def is_compiled(network: torch.nn.Module) -> bool:
    return hasattr(network.forward, "_torchdynamo_orig_callable")


def save_zero123(folder: Path, projection: str = "clip_camera_projection", key: str = "proj") -> Path:
    """Zero-1-to-3: a UNet over a noisy and the picture's latent, CLIP's image encoder, a layer for picture and camera.

    Args:
        projection, key: how authors name that layer and its weights.
    """
    torch.manual_seed(7)
    unet = tiny_unet(8)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=16, scaling_factor=0.18215,
        force_upcast=False,
    )  # fmt: skip
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28,
            patch_size=14, projection_dim=16,
        )
    )  # fmt: skip
    index = {"_class_name": "Zero123Pipeline", projection: ["zero123", "CLIPCameraProjection"]}
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "image_encoder": encoder, "scheduler": DDPMScheduler()}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["transformers" if name == "image_encoder" else "diffusers", type(part).__name__]
    layer = torch.nn.Linear(16 + 4, 16)
    (folder / projection).mkdir(parents=True)
    tensors = {f"{key}.{name}": tensor.contiguous() for name, tensor in layer.state_dict().items()}
    save_file(tensors, folder / projection / "diffusion_pytorch_model.safetensors")
    (folder / projection / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
