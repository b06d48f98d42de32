// A drawing context that writes SVG: what the views draw on canvases, as vectors.

const escaped = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
const rounded = (x) => +x.toFixed(2);

export class SvgPaper {
  constructor() {
    this.parts = [];
    this.path = [];
    this.clips = 0;
    this.depth = 0;
    this.dash = [];
    Object.assign(this, {
      fillStyle: "#000",
      strokeStyle: "#000",
      lineWidth: 1,
      globalAlpha: 1,
      font: "12px sans-serif",
      textAlign: "left",
      textBaseline: "alphabetic",
      lineJoin: "miter",
      lineCap: "butt",
    });
  }

  beginPath() {
    this.path = [];
  }

  moveTo(x, y) {
    this.path.push(`M${rounded(x)} ${rounded(y)}`);
  }

  lineTo(x, y) {
    this.path.push(`L${rounded(x)} ${rounded(y)}`);
  }

  closePath() {
    this.path.push("Z");
  }

  rect(x, y, w, h) {
    this.path.push(`M${rounded(x)} ${rounded(y)}h${rounded(w)}v${rounded(h)}h${rounded(-w)}Z`);
  }

  arc(x, y, r) {
    this.path.push(`M${rounded(x - r)} ${rounded(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`);
  }

  fill(rule = "nonzero") {
    this.parts.push(
      `<path d="${this.path.join("")}" fill="${escaped(this.fillStyle)}" fill-rule="${rule}" opacity="${this.globalAlpha}"/>`,
    );
  }

  stroke() {
    const dashes = this.dash.length ? ` stroke-dasharray="${this.dash.join(" ")}"` : "";
    this.parts.push(
      `<path d="${this.path.join("")}" fill="none" stroke="${escaped(this.strokeStyle)}" stroke-width="${this.lineWidth}" stroke-linejoin="${this.lineJoin}" opacity="${this.globalAlpha}"${dashes}/>`,
    );
  }

  setLineDash(dash) {
    this.dash = dash;
  }

  fillRect(x, y, w, h) {
    this.beginPath();
    this.rect(x, y, w, h);
    this.fill();
  }

  strokeRect(x, y, w, h) {
    this.beginPath();
    this.rect(x, y, w, h);
    this.stroke();
  }

  fillText(text, x, y) {
    const anchor = { left: "start", center: "middle", right: "end" }[this.textAlign];
    const shift = { top: "0.8em", middle: "0.32em", alphabetic: "0" }[this.textBaseline];
    this.parts.push(
      `<text x="${rounded(x)}" y="${rounded(y)}" dy="${shift}" text-anchor="${anchor}" fill="${escaped(this.fillStyle)}" font-size="12" font-family="system-ui, sans-serif">${escaped(text)}</text>`,
    );
  }

  save() {
    this.depth += 1;
  }

  clip() {
    this.clips += 1;
    this.parts.push(
      `<clipPath id="c${this.clips}"><path d="${this.path.join("")}"/></clipPath><g clip-path="url(#c${this.clips})">`,
    );
  }

  restore() {
    this.depth -= 1;
    this.parts.push("</g>");
  }

  text(width, height) {
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">${this.parts.join("\n")}</svg>`;
  }
}
