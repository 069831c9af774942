import { info, warn } from "./log.js";
import { readSettings } from "./settings.js";
import { Worker } from "./worker.js";

try {
  const settings = readSettings(process.env);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // Once: a second signal ends the process.
    process.once(signal, () => {
      info("stopping", { signal });
      stop.abort();
      setTimeout(() => end("stopping took too long"), settings.shutdownSeconds * 1000);
    });
  }
  await new Worker(settings).run(stop.signal);
  info("stopped");
  process.exit(0);
} catch (error) {
  end(error instanceof Error ? error.message : "unknown error");
}

function end(problem: string): never {
  warn("ended", { problem });
  process.exit(1);
}
