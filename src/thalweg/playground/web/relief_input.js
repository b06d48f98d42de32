// The view in three dimensions under pointer and keys; what OrbitControls does not do.

export function listenToRelief(view) {
  const { canvas, world } = view;
  const L = libraries;
  let pressed = null;
  const hit = (event) => {
    if (!view.mesh) return null;
    const box = canvas.getBoundingClientRect();
    const at = new L.Vector2(
      (2 * (event.clientX - box.left)) / box.width - 1,
      1 - (2 * (event.clientY - box.top)) / box.height,
    );
    const ray = new L.Raycaster();
    ray.setFromCamera(at, view.camera);
    const [found] = ray.intersectObject(view.mesh);
    return found ? view.unplaced(found.point) : null;
  };
  canvas.addEventListener("pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
  canvas.addEventListener("pointerup", (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) <= 5;
    const place = still && event.button === 0 ? hit(event) : null;
    if (place) world.begin(...place, world.together);
    pressed = null;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (pressed || event.pointerType === "touch") return;
    world.pointer = hit(event);
    world.changed("look");
  });
  canvas.addEventListener("pointerleave", () => {
    world.pointer = null;
    world.changed("look");
  });
  canvas.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [0.12, 0], ArrowRight: [-0.12, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key in turns) turn(view, ...turns[event.key], 1);
    else if (event.key === "+" || event.key === "=") turn(view, 0, 0, 0.88);
    else if (event.key === "-") turn(view, 0, 0, 1.14);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function turn(view, around, up, away) {
  const offset = view.camera.position.clone().sub(view.controls.target);
  const length = offset.length() * away;
  const azimuth = Math.atan2(offset.x, offset.z) + around;
  const polar = Math.min(Math.max(Math.acos(offset.y / offset.length()) + up, 0.05), 1.55);
  offset
    .set(Math.sin(polar) * Math.sin(azimuth), Math.cos(polar), Math.sin(polar) * Math.cos(azimuth))
    .multiplyScalar(length);
  view.camera.position.copy(view.controls.target).add(offset);
  view.controls.update();
  view.world.changed("camera");
}
