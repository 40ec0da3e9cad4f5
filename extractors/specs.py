"""The extractors that there are."""

from __future__ import annotations

from dataclasses import replace

from ..errors import UserError
from .base import ExtractorSpec
from .flow import Flow
from .preprocessing import Pictures, SideBySide

# Mean and standard deviation are of values 0 to 255; published with most of these networks are those of values 0 to 1.
_I3D = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)
_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_KINETICS = (110.2008, 100.63983, 95.99475), (58.14765, 56.46975, 55.332195)
_GREY = (114.75, 114.75, 114.75), (57.375, 57.375, 57.375)

I3D_RGB = Pictures(256, 224, *_I3D, interpolation="bicubic")
I3D_FLOW = Flow()
R50 = Pictures(256, 224, *_GREY, rounding="torchvision")  # pytorchvideo's is the same
# torchvision's networks were trained without antialiasing, and are published with that preprocessing.
SMALL = Pictures((128, 171), 112, *_KINETICS, antialias=False, rounding="torchvision")
S3D = Pictures((256, 256), 224, *_KINETICS, antialias=False, rounding="torchvision")
SWIN = Pictures(256, 224, *_IMAGENET, antialias=False, rounding="torchvision")
MVIT = Pictures(256, 224, *_GREY, antialias=False, rounding="torchvision")
C3D = Pictures((128, 171), 112, (90.25, 97.66, 101.41), (1.0, 1.0, 1.0), order="BGR")
C3D_XEL = Pictures((128, 171), 112, (104.0, 117.0, 128.0), (1.0, 1.0, 1.0))
TSN = Pictures((256, 340), 224, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), order="BGR", antialias=False)  # OpenCV's


def _c3d(name: str, note: str, shown: Pictures) -> ExtractorSpec:
    return ExtractorSpec(
        name=name,
        description=f"C3D fc6, Sports-1M (Tran et al., ICCV 2015){note}",
        module=".c3d",
        feature_dim=4096,
        preprocessing=shown,
        default_weights="c3d-sports1m",
    )


def _torchvision(name: str, network: str, feature_dim: int, source: str, shown: Pictures) -> ExtractorSpec:
    return ExtractorSpec(
        name=name,
        description=f"{source}, Kinetics-400, torchvision",
        module=".torchvision_video",
        network=network,
        feature_dim=feature_dim,
        preprocessing=shown,
        default_weights=f"{name}-kinetics400",
    )


def _r50(name: str, note: str, shown: Pictures) -> ExtractorSpec:
    return ExtractorSpec(
        name=name,
        description=f"I3D-ResNet50, RGB, Kinetics-400, pytorchvideo (Fan et al., ACM MM 2021){note}",
        module=".i3d_r50",
        feature_dim=2048,
        preprocessing=shown,
        default_weights="i3d-r50-kinetics400",
    )


EXTRACTORS: dict[str, ExtractorSpec] = {
    spec.name: spec
    for spec in [
        ExtractorSpec(
            name="i3d-rgb",
            description="Inception-I3D, RGB, Kinetics-400 (Carreira & Zisserman, CVPR 2017)",
            module=".i3d",
            feature_dim=1024,
            preprocessing=I3D_RGB,
            default_weights="i3d-rgb-kinetics400",
            bfloat16=True,
        ),
        ExtractorSpec(
            name="i3d-flow",
            description="Inception-I3D, TV-L1 flow, Kinetics-400 (Carreira & Zisserman, CVPR 2017)",
            module=".i3d",
            feature_dim=1024,
            preprocessing=I3D_FLOW,
            default_weights="i3d-flow-kinetics400",
        ),
        ExtractorSpec(
            name="i3d-conc",
            description="I3D-RGB and I3D-flow, one behind the other",
            module=".joined",
            feature_dim=2048,
            preprocessing=SideBySide((I3D_RGB, I3D_FLOW)),
            streams=("i3d-rgb", "i3d-flow"),
        ),
        _c3d("c3d", "", C3D),
        _c3d("c3d-xel", ", shown as by the authors of XEL", C3D_XEL),
        _r50("i3d-r50", "", R50),
        _r50("i3d-r50-10crop", ", 10 crops", replace(R50, crops=10)),
        ExtractorSpec(
            name="tsn-rgb",
            description="TSN, RGB, BN-Inception, Kinetics-400 (Wang et al., ECCV 2016), mean over frames",
            module=".tsn",
            feature_dim=1024,
            preprocessing=TSN,
            default_weights="tsn-rgb-kinetics400",
        ),
        _torchvision("r3d-18", "r3d_18", 512, "R3D-18 (Tran et al., CVPR 2018)", SMALL),
        _torchvision("mc3-18", "mc3_18", 512, "MC3-18 (Tran et al., CVPR 2018)", SMALL),
        _torchvision("r2plus1d-18", "r2plus1d_18", 512, "R(2+1)D-18 (Tran et al., CVPR 2018)", SMALL),
        _torchvision("s3d", "s3d", 1024, "S3D (Xie et al., ECCV 2018)", S3D),
        _torchvision("swin3d-t", "swin3d_t", 768, "Video Swin-T (Liu et al., CVPR 2022)", SWIN),
        _torchvision("swin3d-s", "swin3d_s", 768, "Video Swin-S (Liu et al., CVPR 2022)", SWIN),
        _torchvision("swin3d-b", "swin3d_b", 1024, "Video Swin-B (Liu et al., CVPR 2022)", SWIN),
        _torchvision("mvit-v1-b", "mvit_v1_b", 768, "MViT-B 16x4 (Fan et al., ICCV 2021)", MVIT),
        _torchvision("mvit-v2-s", "mvit_v2_s", 768, "MViTv2-S (Li et al., CVPR 2022)", MVIT),
    ]
}


def spec_of(name: str) -> ExtractorSpec:
    """The specification of a known extractor.

    Raises:
        UserError: there is no extractor of this name.
    """
    if name not in EXTRACTORS:
        raise UserError(f"there is no extractor {name!r}; known: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]
