import { h } from "../shared/dom.js";
import { start } from "../shared/start.js";
start("admin", () => h("p"));
