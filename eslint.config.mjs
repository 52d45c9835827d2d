// The explorer's scripts, which the page holds one after another in one function: what one declares at
// its top, all of them may use.
import js from "@eslint/js";
import { readdirSync, readFileSync } from "node:fs";

const folder = new URL("lrmf/explorer/page/", import.meta.url);
const texts = readdirSync(folder)
  .filter((name) => name.endsWith(".js"))
  .map((name) => readFileSync(new URL(name, folder), "utf8"));
const declarations = texts.flatMap((text) => [...text.matchAll(/^(const|let|class|function) (\w+)/gm)]);
const declared = Object.fromEntries(declarations.map(([, kind, name]) => [name, kind === "let" ? "writable" : "readonly"]));
const browser = ["addEventListener", "atob", "clearTimeout", "document", "history", "Intl", "location", "matchMedia", "Node",
  "requestAnimationFrame", "ResizeObserver", "setTimeout", "URLSearchParams", "window"];
const readonly = (names) => Object.fromEntries(names.map((name) => [name, "readonly"]));

export default [
  js.configs.recommended,
  {
    files: ["lrmf/explorer/page/*.js"],
    languageOptions: { sourceType: "script", globals: { ...readonly(browser), ...declared } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-redeclare": ["error", { builtinGlobals: false }],
      "no-unused-vars": ["error", { vars: "local", args: "after-used", argsIgnorePattern: "^_+$" }],
      "no-implied-eval": "error",
      "no-eval": "error",
      "no-new-func": "error",
      // User data are text, never HTML.
      "no-restricted-properties": ["error", ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({ property }))],
      "eqeqeq": "error",
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  { files: ["*.mjs"], languageOptions: { globals: readonly(["URL"]) } },
];
