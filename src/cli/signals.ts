// Ctrl-C and SIGTERM: the first one asks the work to end, the second ends the process at once.

/** Gives `work` a signal that aborts with the first of them; `onSecond` is called before the process ends. */
export async function untilSignal<T>(
  work: (signal: AbortSignal) => Promise<T>,
  onSecond: () => void = () => {},
): Promise<T> {
  const interrupt = new AbortController();
  const onSignal = (): void => {
    if (interrupt.signal.aborted) {
      onSecond();
      process.exit(130);
    }
    interrupt.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    return await work(interrupt.signal);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}
