// Hides the join line, which holds a key: loaded before anything that could start a child or a thread.

/** What LOCKSTEP_JOIN held; nobody finds it there any more. */
export const joinLineOfEnvironment = process.env['LOCKSTEP_JOIN'];
delete process.env['LOCKSTEP_JOIN'];

// The list of processes shows the title in the place of the arguments.
if (process.argv.includes('worker')) process.title = 'lockstep worker';
