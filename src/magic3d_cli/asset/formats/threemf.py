"""3MF (3D Manufacturing Format 1.3 with its Materials and Properties extension 1.2): a closed mesh with its texture.

In millimetres, +Z up, as the format asks.
"""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import escape

import numpy as np

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import MILLIMETRES, one_line, png_bytes, z_up
from magic3d_cli.version import __version__

_MODEL, _TEXTURE = "3D/3dmodel.model", "3D/Textures/base_colour.png"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format: the same asset gives the same bytes
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
<Default Extension="png" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodeltexture"/>
</Types>"""


def threemf_bytes(asset: Asset, name: str) -> bytes:
    """The file: a zip archive of a model in XML, its texture, and what refers to them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in (
            ("[Content_Types].xml", _TYPES.encode()),
            ("_rels/.rels", _relation(_MODEL, "2013/01/3dmodel")),
            (_MODEL, _model(asset, one_line(name)).encode()),
            ("3D/_rels/3dmodel.model.rels", _relation(_TEXTURE, "2013/01/3dtexture")),
            (_TEXTURE, png_bytes(asset.texture)),
        ):
            archive.writestr(zipfile.ZipInfo(path, _DATE), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _relation(target: str, kind: str) -> bytes:
    schema = f"http://schemas.microsoft.com/3dmanufacturing/{kind}"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Relationships xmlns="{_RELATIONS}">'
        f'<Relationship Id="rel0" Type="{schema}" Target="/{target}"/></Relationships>'
    ).encode()


def _model(asset: Asset, name: str) -> str:
    first, point = asset.shared()
    positions = z_up(asset.positions[first].astype(np.float64)) * MILLIMETRES
    positions -= [0, 0, positions[:, 2].min()]
    corners = np.concatenate([point[asset.faces], asset.faces], 1).tolist()
    title = escape("".join(c for c in name if c.isprintable()))
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<model unit="millimeter" xml:lang="en-US"'
            ' xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"'
            ' xmlns:m="http://schemas.microsoft.com/3dmanufacturing/material/2015/02">',
            f'<metadata name="Title">{title}</metadata>',
            f'<metadata name="Application">magic3d {__version__}</metadata>',
            *(
                f'<metadata name="{key}">{escape(str(asset.about[source]))}</metadata>'
                for key, source in (("Description", "prompt"), ("LicenseTerms", "prior_licence"))
                if source in asset.about
            ),
            "<resources>",
            f'<m:texture2d id="1" path="/{_TEXTURE}" contenttype="image/png"/>',
            '<m:texture2dgroup id="2" texid="1">',
            *(f'<m:tex2coord u="{u:.6f}" v="{1 - v:.6f}"/>' for u, v in asset.uvs.tolist()),  # origin bottom left
            "</m:texture2dgroup>",
            '<object id="3" type="model" pid="2" pindex="0"><mesh><vertices>',
            *('<vertex x="{:.6f}" y="{:.6f}" z="{:.6f}"/>'.format(*p) for p in positions.tolist()),
            "</vertices><triangles>",
            *('<triangle v1="{}" v2="{}" v3="{}" pid="2" p1="{}" p2="{}" p3="{}"/>'.format(*c) for c in corners),
            "</triangles></mesh></object>",
            "</resources>",
            '<build><item objectid="3"/></build>',
            "</model>",
        ]
    )
