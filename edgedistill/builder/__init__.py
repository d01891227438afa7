"""The builder: from a Job to a Report.

driver      the straight line, in one sitting; `planned` is that of a plan, which runs nothing
opening     what a job opens before anything is read: target, output folder, store
prepare     read rows and models, match labels: the facts for the planner
brought     the models, read, held against the rows, and brought into the store
given       an .onnx in a model's place
reading     the encoder that ships, held against transformers' own
about       what people are told first
course      a build under way, and the one way to run steps
teacher     the teacher held against its own rows before anything is distilled
shortlist   what can be known of students before the hour of training
contest     which students are trained, in which order
figures     rows measured and judged
tuning      the session that ships
processors  the chosen file as each processor of the target
record      report.json
shipping    the bundle, or the report of a build without one
narrate     what each step is for, in one line
"""
