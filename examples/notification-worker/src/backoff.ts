import { setTimeout as sleep } from "node:timers/promises";

const FIRST_MS = 500;
const LONGEST_MS = 30_000;

/**
 * Pauses after a failed attempt (0 is the first): twice as long after each, and by chance shorter, so that many workers
 * do not return at the same moment. Not shorter than `atLeastMs`. Rejects when `signal` is aborted.
 */
export async function backoff(attempt: number, atLeastMs: number, signal?: AbortSignal): Promise<void> {
  const longest = Math.min(FIRST_MS * 2 ** attempt, LONGEST_MS);
  const pause = longest * (0.5 + Math.random() / 2);
  await sleep(Math.max(pause, atLeastMs), undefined, signal && { signal });
}
