"""Run by Blender, imports each file, measures and renders it: blender -b -P blender_import.py -- OUT FILE..."""

import json
import sys
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

# Debian 12's Blender 3.4 has this name in its glTF importer, and Debian 12's NumPy 1.24 does not have it any more.
vars(np)["bool"] = bool

out, *files = (Path(argument) for argument in sys.argv[sys.argv.index("--") + 1 :])
IMPORTERS = {
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path),
    ".ply": lambda path: bpy.ops.import_mesh.ply(filepath=path),
    ".stl": lambda path: bpy.ops.import_mesh.stl(filepath=path),
    ".usdz": lambda path: bpy.ops.wm.usd_import(filepath=path, import_textures_mode="IMPORT_PACK"),
}
report: dict[str, dict[str, object]] = {}
for file in files:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        IMPORTERS[file.suffix](str(file))
    except (AttributeError, RuntimeError) as error:  # `check.py` knows which importer a Blender may be built without
        report[file.suffix] = {"error": str(error).strip()[:300]}
        continue
    meshes = [o for o in bpy.context.scene.objects if o.type == "MESH"]
    points = [m.matrix_world @ v.co for m in meshes for v in m.data.vertices]
    low = Vector(min(p[i] for p in points) for i in range(3))
    high = Vector(max(p[i] for p in points) for i in range(3))
    images = [i for i in bpy.data.images if i.type == "IMAGE"]
    report[file.suffix] = {
        "objects": len(meshes),
        "triangles": sum(len(p.vertices) - 2 for m in meshes for p in m.data.polygons),
        "low": list(low),
        "high": list(high),
        "images": [list(i.size) for i in images],
        "vertex_colours": sum(len(m.data.color_attributes) for m in meshes),
    }
    if file.suffix != ".glb":
        continue
    # In Blender +Z is up and a thing that faces +Z in glTF faces -Y: the camera stands there.
    centre, radius = (low + high) / 2, max((p - (low + high) / 2).length for p in points)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.type, camera.data.ortho_scale = "ORTHO", 2.1 * radius
    camera.location, camera.rotation_euler = centre + Vector((0, -4 * radius, 0)), (1.5707963, 0, 0)
    camera.data.clip_end = 100 * radius
    scene = bpy.context.scene
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.device, scene.cycles.use_denoising = 4, "CPU", False
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = 128
    scene.render.filepath = str(out / "blender.png")
    bpy.ops.render.render(write_still=True)
(out / "blender.json").write_text(json.dumps(report, indent=1))
