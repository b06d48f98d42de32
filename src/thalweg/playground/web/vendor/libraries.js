// What the playground uses of its libraries; see README.md.
export {
  BufferAttribute,
  BufferGeometry,
  Color,
  DoubleSide,
  Group,
  Mesh,
  MeshBasicMaterial,
  OctahedronGeometry,
  PerspectiveCamera,
  Raycaster,
  Scene,
  SRGBColorSpace,
  Vector2,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { LineSegments2 } from "three/addons/lines/LineSegments2.js";
export { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";
export { LineMaterial } from "three/addons/lines/LineMaterial.js";
export { contours } from "d3-contour";
export { scaleLinear, scaleLog } from "d3-scale";
export { GIFEncoder, applyPalette, quantize } from "gifenc";
